//! The root file system of a sandbox: an overlay that exists only in the mount namespace of its runtime.
//!
//! The host never sees the mount, so nothing is left of it when the sandbox's last process is gone,
//! however that came about; and a host with a thousand sandboxes has as many mounts as one with none.

use std::ffi::{c_int, CString};
use std::io;
use std::os::fd::RawFd;

use super::sys::{self, c};
use super::tree::cstring;

/// Descriptors that name the layers: paths in mount options would need escaping and have a length limit.
const FIRST_LAYER_FD: c_int = 200;
/// 19 bytes each in the option text, which has room for 4095.
const LAYERS_MAX: usize = 200;

/// How the files' owners are mapped into a sandbox's user namespace.
pub struct IdMap {
    pub userns: RawFd,
    /// The host's id of the sandbox's root.
    pub base: u32,
}

pub struct MountPlan {
    target: CString,
    lowers: Vec<CString>,
    /// Holds `upper` and `work`.
    writable: CString,
    options: CString,
    /// Mounts of the host that the runtime must not see; see `hide`.
    hidden: Vec<CString>,
    ids: Option<IdMap>,
}

impl MountPlan {
    pub fn new(target: &[u8], lowers: Vec<CString>, writable: &[u8], ids: Option<IdMap>) -> io::Result<MountPlan> {
        if lowers.is_empty() || lowers.len() > LAYERS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an overlay has 1 to 200 layers"));
        }
        let lower: Vec<String> = (0..lowers.len()).map(|n| fd_path(n + 1)).collect();
        let own = fd_path(0);
        // volatile: without it every unmount writes back the whole file system below. A sandbox does not
        // outlive a crash of the host, so its fsync has nothing to promise.
        // No redirects or metacopy: a hostile layer could point them at other places of the lower trees.
        let options = format!(
            "lowerdir={},upperdir={own}/upper,workdir={own}/work,volatile,redirect_dir=nofollow,metacopy=off,index=off",
            lower.join(":"),
        );
        Ok(MountPlan {
            target: cstring(target)?,
            lowers,
            writable: cstring(writable)?,
            options: cstring(options.as_bytes())?,
            hidden: Vec::new(),
            ids,
        })
    }

    /// Leaves out mounts of the host: crun refuses a host that has cgroup v2 beside v1.
    pub fn hide(mut self, paths: Vec<CString>) -> MountPlan {
        self.hidden = paths;
        self
    }

    /// # Safety
    /// Runs after fork and `unshare(CLONE_NEWNS)`: system calls only. On failure errno tells why.
    pub unsafe fn apply(&self) -> bool {
        if c::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), sys::MS_REC | sys::MS_PRIVATE, std::ptr::null()) != 0 {
            return false;
        }
        for path in &self.hidden {
            if c::umount2(path.as_ptr(), sys::MNT_DETACH) != 0 {
                return false;
            }
        }
        if !self.layer(&self.writable, FIRST_LAYER_FD) {
            return false;
        }
        for (n, lower) in self.lowers.iter().enumerate() {
            if !self.layer(lower, FIRST_LAYER_FD + 1 + n as c_int) {
                return false;
            }
        }
        // overlayfs works on its layers as whoever mounted it, and our own root does not exist below an id map.
        if self.ids.as_ref().is_some_and(|ids| !sys::set_fs_ids(ids.base)) {
            return false;
        }
        let kind = c"overlay".as_ptr();
        if c::mount(kind, self.target.as_ptr(), kind, sys::MS_NODEV, self.options.as_ptr().cast()) != 0 {
            return false;
        }
        if self.ids.is_some() && !sys::set_fs_ids(0) {
            return false;
        }
        for n in 0..=self.lowers.len() {
            c::close(FIRST_LAYER_FD + n as c_int);
        }
        true
    }

    unsafe fn layer(&self, path: &CString, at: c_int) -> bool {
        let fd = match &self.ids {
            None => c::open(path.as_ptr(), sys::O_PATH | sys::O_DIRECTORY | sys::O_CLOEXEC),
            Some(ids) => {
                let tree = sys::open_tree_clone(path.as_ptr()) as c_int;
                // overlayfs takes layers only from mounts of its own namespace, so the clone is attached:
                // one over the other on the target, which the overlay then covers.
                if tree < 0 || sys::idmap_mount(tree, ids.userns) != 0 || sys::attach_mount(tree, self.target.as_ptr()) != 0 {
                    return false;
                }
                tree
            }
        };
        fd >= 0 && c::dup2(fd, at) >= 0 && c::close(fd) == 0
    }
}

fn fd_path(n: usize) -> String {
    format!("/proc/self/fd/{}", FIRST_LAYER_FD as usize + n)
}
