//! The memory that two processes share: a memfd that neither can make shorter, mapped, as words.
//!
//! The one file of the prototype with `unsafe` in it. What makes it sound: the mapping lives as long as
//! the value; the file cannot shrink under it, since it is sealed (an access beyond a file's end would
//! end the process with SIGBUS); and the memory is never lent but as atomic words, which may be changed
//! by anybody at any time. No reference to plain bytes in it ever exists.
#![allow(unsafe_code)]

#[cfg(not(loom))]
pub use mapped::SharedMemory;
#[cfg(loom)]
pub use modelled::SharedMemory;

#[cfg(not(loom))]
mod mapped {
    use std::os::fd::{AsFd, OwnedFd};
    use std::ptr::{self, NonNull};
    use std::slice;
    use std::sync::atomic::AtomicU64;

    use rustix::fs::{
        MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
    };
    use rustix::io::Errno;
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    /// Seals that keep the mapping whole, whatever the other side does with its descriptor. It cannot
    /// add others either: a seal against writing would not harm what is mapped, but who knows of the next.
    fn seals() -> SealFlags {
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
    }

    /// Memory that is shared with another process, which may change any word of it at any time.
    #[derive(Debug)]
    pub struct SharedMemory {
        start: NonNull<AtomicU64>,
        words: usize,
    }

    // SAFETY: the mapping belongs to the process, not to a thread, and is only lent as atomics.
    unsafe impl Send for SharedMemory {}
    // SAFETY: as above.
    unsafe impl Sync for SharedMemory {}

    impl SharedMemory {
        /// New memory of `bytes` bytes, all 0, and the descriptor that another process opens it with.
        pub fn create(bytes: usize) -> Result<(Self, OwnedFd), Errno> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let name = "nexusd-ring";
            let descriptor = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
                // Linux before 6.3.
                Err(Errno::INVAL) => memfd_create(name, flags)?,
                made => made?,
            };
            ftruncate(&descriptor, bytes as u64)?;
            fcntl_add_seals(&descriptor, seals())?;
            Ok((Self::map(&descriptor, bytes)?, descriptor))
        }

        /// The memory behind a descriptor that came from another process. Refused with `INVAL` if it
        /// has not exactly `bytes` bytes or could be made shorter.
        pub fn open(descriptor: impl AsFd, bytes: usize) -> Result<Self, Errno> {
            // Only memory files have seals, so this also refuses files of other kinds, whose pages
            // somebody could let us wait for.
            if !fcntl_get_seals(&descriptor)?.contains(seals()) {
                return Err(Errno::INVAL);
            }
            if fstat(&descriptor)?.st_size != bytes as i64 {
                return Err(Errno::INVAL);
            }
            Self::map(&descriptor, bytes)
        }

        fn map(descriptor: impl AsFd, bytes: usize) -> Result<Self, Errno> {
            // Populated: a page that is missing is noticed now.
            let flags = MapFlags::SHARED | MapFlags::POPULATE;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
            let start = unsafe { mmap(ptr::null_mut(), bytes, access, flags, descriptor, 0)? };
            let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
            Ok(Self { start, words: bytes / size_of::<AtomicU64>() })
        }

        /// All of it. The other process may change any word between two looks at it.
        #[inline]
        pub fn words(&self) -> &[AtomicU64] {
            // SAFETY: the mapping has so many words and begins at a page; it stays until `self` is
            // dropped, and the file behind it keeps its length. Every bit pattern is an `AtomicU64`,
            // and this process touches the memory in no other way.
            unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
        }
    }

    impl Drop for SharedMemory {
        fn drop(&mut self) {
            let bytes = self.words * size_of::<AtomicU64>();
            // SAFETY: exactly what `map` was given, and no reference into it outlives `self`.
            let unmapped = unsafe { munmap(self.start.as_ptr().cast(), bytes) };
            debug_assert!(unmapped.is_ok(), "a whole mapping can always be given back");
        }
    }
}

#[cfg(loom)]
mod modelled {
    use loom::sync::atomic::AtomicU64;

    /// The same for loom, which checks every access: memory of two threads.
    #[derive(Debug)]
    pub struct SharedMemory(Vec<AtomicU64>);

    impl SharedMemory {
        #[cfg(test)]
        pub(crate) fn zeroed(bytes: usize) -> Self {
            Self((0..bytes / 8).map(|_| AtomicU64::new(0)).collect())
        }

        /// All of it.
        pub fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }
}
