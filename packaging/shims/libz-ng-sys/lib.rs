//! Stands in for `libz-ng-sys`, whose build script needs cmake. Pingora fixes flate2's `zlib-ng`
//! feature; the Rust port of zlib-ng does the same work, so a C compiler is all a build needs.
//!
//! The one difference between the two is `z_stream`: here, as in `libz-ng-sys`, the allocators are
//! plain function pointers, there they are `Option`s of them. Both are one pointer wide.
#![allow(non_camel_case_types, non_snake_case, clippy::missing_safety_doc)]

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

pub use libz_rs_sys::*;

/// zlib's stream state as C lays it out.
#[repr(C)]
pub struct z_stream {
    pub next_in: *mut u8,
    pub avail_in: c_uint,
    pub total_in: c_ulong,
    pub next_out: *mut u8,
    pub avail_out: c_uint,
    pub total_out: c_ulong,
    pub msg: *mut c_char,
    pub state: *mut c_void,
    pub zalloc: extern "C" fn(*mut c_void, c_uint, c_uint) -> *mut c_void,
    pub zfree: extern "C" fn(*mut c_void, *mut c_void),
    pub opaque: *mut c_void,
    pub data_type: c_int,
    pub adler: c_ulong,
    pub reserved: c_ulong,
}

const _: () = assert!(size_of::<z_stream>() == size_of::<libz_rs_sys::z_stream>());
const _: () = assert!(
    std::mem::offset_of!(z_stream, opaque)
        == std::mem::offset_of!(libz_rs_sys::z_stream, opaque)
);

macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {$(
        /// The function of the same name in `libz-rs-sys`, with its contract.
        pub unsafe extern "C" fn $name(stream: *mut z_stream, $($arg: $ty),*) -> c_int {
            // SAFETY: the two structures have one layout (asserted above); the caller keeps zlib's contract.
            unsafe { libz_rs_sys::$name(stream.cast(), $($arg),*) }
        }
    )*};
}

forward! {
    deflate(flush: c_int);
    deflateEnd();
    deflateReset();
    deflateParams(level: c_int, strategy: c_int);
    deflateSetDictionary(dictionary: *const u8, length: c_uint);
    deflateInit2_(level: c_int, method: c_int, window_bits: c_int, mem_level: c_int, strategy: c_int, version: *const c_char, size: c_int);
    inflate(flush: c_int);
    inflateEnd();
    inflateReset();
    inflateReset2(window_bits: c_int);
    inflateSetDictionary(dictionary: *const u8, length: c_uint);
    inflateInit2_(window_bits: c_int, version: *const c_char, size: c_int);
}
