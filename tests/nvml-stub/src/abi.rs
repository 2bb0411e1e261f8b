//! The caller's memory: the only place that reads or writes through a pointer.
//!
//! Every function here takes a pointer that an exported function was given, never one from elsewhere: NVML's contract
//! says that it is null or valid for what the function does with it, for as long as the call lasts. Null is refused
//! with `InvalidArgument`, as NVML does.

#![expect(unsafe_code, reason = "a C library writes to where its caller points")]

use std::{
    ffi::{CStr, c_char, c_uint},
    ptr::NonNull,
};

use crate::codes::Code;

/// Where a call's results go: one pointer, several of one type, or a buffer for text.
pub(crate) trait Slot<T> {
    fn fill(self, value: T) -> Result<(), Code>;
}

impl<T> Slot<T> for *mut T {
    fn fill(self, value: T) -> Result<(), Code> {
        put(self, value)
    }
}

impl<T, const N: usize> Slot<[T; N]> for [*mut T; N] {
    fn fill(self, values: [T; N]) -> Result<(), Code> {
        if self.iter().any(|out| out.is_null()) {
            return Err(Code::InvalidArgument);
        }
        self.into_iter().zip(values).try_for_each(|(out, value)| put(out, value))
    }
}

/// A buffer for text, and how many bytes it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer(pub(crate) *mut c_char, pub(crate) c_uint);

impl Slot<String> for Buffer {
    fn fill(self, text: String) -> Result<(), Code> {
        let Self(buffer, length) = self;
        if buffer.is_null() {
            return Err(Code::InvalidArgument);
        }
        if text.len() >= length as usize {
            return Err(Code::InsufficientSize);
        }
        let bytes = text.bytes().chain([0]);
        bytes.enumerate().try_for_each(|(at, byte)| put(element(buffer, at), byte as c_char))
    }
}

pub(crate) fn put<T>(out: *mut T, value: T) -> Result<(), Code> {
    let out = NonNull::new(out).ok_or(Code::InvalidArgument)?;
    // SAFETY: not null, so by NVML's contract valid for a write of what it points to. The caller may have written
    // nothing there yet: nothing is read or dropped.
    unsafe { out.write(value) };
    Ok(())
}

pub(crate) fn take<T: Copy>(from: *const T) -> Result<T, Code> {
    let from = NonNull::new(from.cast_mut()).ok_or(Code::InvalidArgument)?;
    // SAFETY: not null, so by NVML's contract valid for a read; what is read are arguments, which the caller has set.
    Ok(unsafe { from.read() })
}

/// A C string's text.
pub(crate) fn text(from: *const c_char) -> Result<String, Code> {
    if from.is_null() {
        return Err(Code::InvalidArgument);
    }
    // SAFETY: not null, so by NVML's contract a string that ends with a zero and that nobody changes during the call.
    let text = unsafe { CStr::from_ptr(from) };
    text.to_str().map(str::to_owned).map_err(|_| Code::InvalidArgument)
}

/// The `at`th of an array. Computing it is safe; it is the contract that makes the pointer good.
pub(crate) fn element<T>(array: *mut T, at: usize) -> *mut T {
    array.wrapping_add(at)
}

/// The version of a struct that begins with one.
pub(crate) fn check_version<T>(versioned: *const T, expected: c_uint) -> Result<(), Code> {
    if take(versioned.cast::<c_uint>())? == expected { Ok(()) } else { Err(Code::ArgumentVersionMismatch) }
}

/// The version that NVML gives a struct: its size, and its revision in the upper byte.
pub(crate) const fn struct_version<T>(revision: c_uint) -> c_uint {
    size_of::<T>() as c_uint | revision << 24
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn null_is_refused_and_nothing_is_written_beside_it() {
        let mut value = 1_u32;
        assert_eq!(put(ptr::null_mut::<u32>(), 2), Err(Code::InvalidArgument));
        assert_eq!([ptr::null_mut(), &raw mut value].fill([2, 3]), Err(Code::InvalidArgument));
        assert_eq!(value, 1);
        assert_eq!([&raw mut value].fill([2]), Ok(()));
        assert_eq!(value, 2);
    }

    #[test]
    fn text_needs_room_for_its_end() {
        let mut buffer = [1 as c_char; 4];
        assert_eq!(Buffer(buffer.as_mut_ptr(), 3).fill("abc".to_owned()), Err(Code::InsufficientSize));
        assert_eq!(Buffer(buffer.as_mut_ptr(), 4).fill("abc".to_owned()), Ok(()));
        assert_eq!(text(buffer.as_ptr()).as_deref(), Ok("abc"));
        assert_eq!(text(ptr::null()), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_version_is_a_size_and_a_revision() {
        assert_eq!(struct_version::<nvml_wrapper_sys::bindings::nvmlMemory_v2_t>(2), 0x0200_0028);
        let versioned = [7_u32, 0];
        assert_eq!(check_version(&raw const versioned, 7), Ok(()));
        assert_eq!(check_version(&raw const versioned, 8), Err(Code::ArgumentVersionMismatch));
    }
}
