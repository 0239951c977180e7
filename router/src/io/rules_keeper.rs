//! Puts the node's rules in place, keeps them there, and takes them away.
//!
//! What the kernel should have is kept here in full, so that a table that somebody flushed comes back
//! as it was. Calls block for as long as a transaction of nftables takes: below a millisecond, unless
//! many others change theirs.

use std::collections::BTreeMap;

use control::AttachmentRef;
use hostnet::nft::{Family, Nft, NftError, Observed, Step, plan};

use crate::rules::{GuardedPod, RuleSettings};

/// The rules of a node.
#[derive(Debug)]
pub struct RulesKeeper {
    settings: RuleSettings,
    nft: Nft,
    pods: BTreeMap<AttachmentRef, GuardedPod>,
    /// What the kernel had after the last change, unless somebody else changed it since.
    believed: BTreeMap<Family, Observed>,
    /// What was counted in tables that were replaced meanwhile.
    counted: BTreeMap<String, u64>,
}

impl RulesKeeper {
    /// For the calling thread's network namespace. Nothing is touched yet.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open(
        settings: RuleSettings,
        pods: BTreeMap<AttachmentRef, GuardedPod>,
    ) -> Result<Self, NftError> {
        Ok(Self {
            settings,
            nft: Nft::open()?,
            pods,
            believed: BTreeMap::new(),
            counted: BTreeMap::new(),
        })
    }

    /// Brings the kernel into line. Returns whether anything had to be done.
    ///
    /// # Errors
    /// The kernel refuses; what it had it still has.
    pub fn assert(&mut self) -> Result<bool, NftError> {
        let mut steps = Vec::new();
        let mut lost = BTreeMap::new();
        for table in self.settings.tables(self.pods.values()) {
            let observed = self.nft.observe(table.family, &table.name)?;
            let of_table = plan(observed.as_ref(), &table);
            if observed.is_some() && matches!(&of_table[..], [Step::Replace(_)]) {
                lost.extend(self.nft.counters(table.family, &table.name)?);
            }
            steps.extend(of_table);
        }
        self.nft.apply(&steps)?;
        for (name, counted) in lost {
            *self.counted.entry(name).or_default() += counted.packets;
        }
        self.believe();
        Ok(!steps.is_empty())
    }

    fn believe(&mut self) {
        let tables = self.settings.tables(self.pods.values());
        self.believed = tables
            .iter()
            .map(|table| (table.family, table.as_observed()))
            .collect();
    }

    /// A pod is about to get its interface.
    ///
    /// # Errors
    /// As [`RulesKeeper::assert`].
    pub fn add(&mut self, of: AttachmentRef, pod: GuardedPod) -> Result<(), NftError> {
        if self.pods.get(&of) == Some(&pod) {
            return Ok(());
        }
        self.pods.insert(of, pod);
        self.follow()
    }

    /// A pod has lost its interface.
    ///
    /// # Errors
    /// As [`RulesKeeper::assert`].
    pub fn remove(&mut self, of: &AttachmentRef) -> Result<(), NftError> {
        match self.pods.remove(of) {
            Some(_) => self.follow(),
            None => Ok(()),
        }
    }

    /// Does what follows from a change of the pods, without looking first.
    fn follow(&mut self) -> Result<(), NftError> {
        if !self.settings.spoof_guard {
            return Ok(());
        }
        let tables = self.settings.tables(self.pods.values());
        let steps: Vec<_> = tables
            .iter()
            .flat_map(|table| plan(self.believed.get(&table.family), table))
            .collect();
        match self.nft.apply(&steps) {
            Ok(()) => {
                self.believe();
                Ok(())
            }
            // Somebody has been at the table.
            Err(_) => self.assert().map(drop),
        }
    }

    /// Packets that the rules have dropped since the router started, by counter.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn dropped(&mut self) -> Result<BTreeMap<String, u64>, NftError> {
        let mut all = self.counted.clone();
        for table in self.settings.tables(std::iter::empty()) {
            for (name, counted) in self.nft.counters(table.family, &table.name)? {
                *all.entry(name).or_default() += counted.packets;
            }
        }
        Ok(all)
    }

    /// Takes the rules away.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn withdraw(&mut self) -> Result<(), NftError> {
        let tables = self.settings.tables(std::iter::empty());
        let steps: Vec<_> = tables
            .into_iter()
            .map(|table| Step::Delete(table.family, table.name))
            .collect();
        self.nft.apply(&steps)
    }
}
