//! The way of a call: logged, befallen by its faults, its handle looked up, answered by the card, its result put down.

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::{
    abi::{self, Slot},
    card::Card,
    codes::{self, Code},
    handle::Handle,
    library::{self, Call},
    outputs::Output,
    scenario::Scenario,
};

/// A call about the system.
pub(crate) fn system<T: Output>(
    name: &str,
    out: impl Slot<T>,
    read: impl FnOnce(&Scenario) -> Result<T, Code>,
) -> nvmlReturn_t {
    let go = || {
        let call = library::enter(name, None)?;
        let value = read(&call.loaded.scenario)?;
        out.fill(call.befallen(value))
    };
    codes::as_return(go())
}

/// A call that names a card by its index, if that can be told before its faults.
pub(crate) fn lookup(
    name: &str,
    gpu: Option<usize>,
    out: *mut nvmlDevice_t,
    find: impl FnOnce(&Scenario) -> Result<Handle, Code>,
) -> nvmlReturn_t {
    let go = || {
        let call = library::enter(name, gpu)?;
        let device = find(&call.loaded.scenario)?.encode();
        out.fill(call.befallen(device))
    };
    codes::as_return(go())
}

/// A call with a card's handle that refuses those of MIG devices.
pub(crate) fn card<T: Output>(
    name: &str,
    device: nvmlDevice_t,
    out: impl Slot<T>,
    read: impl FnOnce(&Card<'_>) -> Result<T, Code>,
) -> nvmlReturn_t {
    any(name, device, out, |card| if card.instance.is_some() { Err(Code::NotSupported) } else { read(card) })
}

/// A call with the handle of a card or of a MIG device.
pub(crate) fn any<T: Output>(
    name: &str,
    device: nvmlDevice_t,
    out: impl Slot<T>,
    read: impl FnOnce(&Card<'_>) -> Result<T, Code>,
) -> nvmlReturn_t {
    with(name, device, |call, card| out.fill(call.befallen(read(card)?)))
}

/// A call with a handle that puts its results down itself.
pub(crate) fn with(
    name: &str,
    device: nvmlDevice_t,
    answer: impl FnOnce(&Call, &Card<'_>) -> Result<(), Code>,
) -> nvmlReturn_t {
    let go = || {
        let handle = Handle::decode(device);
        let call = library::enter(name, handle.map(|handle| handle.gpu))?;
        let card = Card::new(&call.loaded.scenario, handle.ok_or(Code::InvalidArgument)?, call.moment)?;
        if card.gpu.is_lost {
            return Err(Code::GpuIsLost);
        }
        answer(&call, &card)
    };
    codes::as_return(go())
}

/// Puts an array down as NVML does: how many there are always, and themselves if there is room for all.
pub(crate) fn fill_array<T: Copy>(items: &[T], count: *mut u32, out: *mut T) -> Result<(), Code> {
    let room = abi::take(count)?;
    let found = u32::try_from(items.len()).map_err(|_| Code::Unknown)?;
    abi::put(count, found)?;
    if room < found {
        return Err(Code::InsufficientSize);
    }
    if found > 0 && out.is_null() {
        return Err(Code::InvalidArgument);
    }
    items.iter().enumerate().try_for_each(|(at, item)| abi::put(abi::element(out, at), *item))
}

impl Call {
    /// What the call gives, with what its fault makes of it.
    pub(crate) fn befallen<T: Output>(&self, mut value: T) -> T {
        if let Some(number) = self.value {
            value.set_first(number);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn an_array_says_how_much_room_it_needs() {
        let (mut count, mut out) = (0, [0_u8; 4]);
        assert_eq!(fill_array(&[7, 8], &raw mut count, ptr::null_mut()), Err(Code::InsufficientSize));
        assert_eq!(count, 2);
        assert_eq!(fill_array(&[7, 8], &raw mut count, ptr::null_mut()), Err(Code::InvalidArgument));
        count = 4;
        assert_eq!(fill_array(&[7, 8], &raw mut count, out.as_mut_ptr()), Ok(()));
        assert_eq!((count, out), (2, [7, 8, 0, 0]));
        assert_eq!(fill_array::<u8>(&[], &raw mut count, ptr::null_mut()), Ok(()));
        assert_eq!(count, 0);
    }
}
