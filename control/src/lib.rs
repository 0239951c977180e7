//! What router, command line and CNI plugin say to each other over the control socket.
