//! The CNI plugin weft-cni.
