#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nexusd_fuzz_targets::beacons(data));
