//! A card's NVLinks.

use nvml_wrapper_sys::bindings as nvml;

use super::{Card, PciAddress};
use crate::{codes::Code, kinds::NvLink, readings::Reading};

impl Card<'_> {
    pub(crate) fn nvlink(&self) -> Result<&'static NvLink, Code> {
        self.model.nvlink.as_ref().ok_or(Code::NotSupported)
    }

    /// The same, if the card has the link.
    pub(crate) fn nvlink_of(&self, link: u32) -> Result<&'static NvLink, Code> {
        if link >= nvml::NVML_NVLINK_MAX_LINKS {
            return Err(Code::InvalidArgument);
        }
        let nvlink = self.nvlink()?;
        if link < nvlink.links { Ok(nvlink) } else { Err(Code::NotSupported) }
    }

    pub(crate) fn is_link_active(&self, link: u32) -> Result<bool, Code> {
        self.nvlink_of(link)?;
        Ok(self.u32(Reading::NvlinkInactive)? >> link & 1 == 0)
    }

    /// The NVSwitch at a link's other end.
    pub(crate) fn link_remote(&self, link: u32) -> Result<(PciAddress, u32), Code> {
        let nvlink = self.nvlink_of(link)?;
        Ok((PciAddress::of_switch(link % nvlink.switches), nvlink.switch_pci_device))
    }

    /// What went over one link, or over all of them.
    pub(crate) fn link_traffic(&self, reading: Reading, link: Option<u32>) -> Result<u64, Code> {
        let Some(link) = link else {
            self.nvlink()?;
            return self.u64(reading);
        };
        let links = u64::from(self.nvlink_of(link)?.links);
        Ok(self.u64(reading)? / links)
    }

    /// Errors of one link, or of all of them: link 0 has them all.
    pub(crate) fn link_errors(&self, reading: Reading, link: Option<u32>) -> Result<u64, Code> {
        match link {
            None => self.nvlink()?,
            Some(link) => self.nvlink_of(link)?,
        };
        let count = self.u64(reading)?;
        Ok(if link.unwrap_or(0) == 0 { count } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::{clock::Moment, handle::Handle, scenario::Scenario};

    fn scenario(kind: &str) -> Scenario {
        let values = "nvlink_inactive = 4\nnvlink_receive_bytes = 1800\nnvlink_replay_errors = 5";
        Scenario::from_str(&format!("[[gpu]]\nkind = \"{kind}\"\n[gpu.values]\n{values}")).unwrap()
    }

    fn card(scenario: &Scenario) -> Card<'_> {
        Card::new(scenario, Handle { gpu: 0, mig: None }, Moment::default()).unwrap()
    }

    #[test]
    fn links_share_traffic_and_the_first_has_the_errors() {
        let scenario = scenario("h100");
        let card = card(&scenario);
        assert_eq!(card.link_traffic(Reading::NvlinkReceiveBytes, None), Ok(1800));
        assert_eq!(card.link_traffic(Reading::NvlinkReceiveBytes, Some(17)), Ok(100));
        let errors = |link| card.link_errors(Reading::NvlinkReplayErrors, link);
        assert_eq!([None, Some(0), Some(1)].map(errors), [Ok(5), Ok(5), Ok(0)]);
        assert_eq!([1, 2].map(|link| card.is_link_active(link)), [Ok(true), Ok(false)]);
    }

    #[test]
    fn a_link_that_is_not_there_is_refused() {
        let (ampere, turing) = (scenario("a100"), scenario("t4"));
        assert_eq!(card(&ampere).is_link_active(11), Ok(true));
        assert_eq!(card(&ampere).is_link_active(12), Err(Code::NotSupported));
        assert_eq!(card(&ampere).is_link_active(18), Err(Code::InvalidArgument));
        assert_eq!(card(&turing).is_link_active(0), Err(Code::NotSupported));
        assert_eq!(card(&turing).link_traffic(Reading::NvlinkReceiveBytes, None), Err(Code::NotSupported));
    }
}
