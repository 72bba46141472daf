//! Network namespaces held by descriptor: no bind mount names them, so none is left when this process ends,
//! and the virtual cable into one goes with it.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::sys::{self, c};
use super::userns::{self, IdRange};

const GUEST_LINK: &str = "eth0";

extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn ioctl(fd: i32, request: std::ffi::c_ulong, ...) -> i32;
    fn send(fd: i32, data: *const std::ffi::c_void, len: usize, flags: i32) -> isize;
    fn recv(fd: i32, data: *mut std::ffi::c_void, len: usize, flags: i32) -> isize;
}

pub struct Cable {
    /// Name of the host's end.
    pub name: String,
    pub host: Ipv4Addr,
    /// The other address of the same /31.
    pub guest: Ipv4Addr,
    pub mtu: u32,
}

pub struct Namespaces {
    pub net: OwnedFd,
    /// The owner of `net`: only its root may mount sysfs there.
    pub user: Option<OwnedFd>,
}

/// A new network namespace with loopback up, in a user namespace of its own when ids are given.
pub fn create(ids: Option<&IdRange>) -> io::Result<Namespaces> {
    let Some(ids) = ids else {
        let net = in_thread(|| {
            sys::check(unsafe { c::unshare(sys::CLONE_NEWNET) })?;
            Interface::new("lo")?.up()?;
            sys::open_at(sys::AT_FDCWD, c"/proc/thread-self/ns/net", sys::O_RDONLY, 0)
        })?;
        return Ok(Namespaces { net, user: None });
    };
    let (user, net) = userns::create_with_net(ids)?;
    let raw = net.as_raw_fd();
    in_thread(move || {
        sys::check(unsafe { c::setns(raw, sys::CLONE_NEWNET) })?;
        Interface::new("lo")?.up()
    })?;
    Ok(Namespaces { net, user: Some(user) })
}

/// A new network namespace with a cable to the host, both ends up, and a default route through it.
pub fn create_with_cable(cable: &Cable, ids: Option<&IdRange>) -> io::Result<Namespaces> {
    let made = create(ids)?;
    let raw = made.net.as_raw_fd();
    new_cable(cable, raw)?;
    // From here on a failure takes the cable away with the namespace, when the descriptor closes.
    let conf = format!("/proc/sys/net/ipv4/conf/{}", cable.name);
    std::fs::write(format!("{conf}/forwarding"), "1")?;
    std::fs::write(format!("{conf}/rp_filter"), "1")?;
    // No IPv6 at all: neither link-local neighbours nor a way around the rules for IPv4.
    disable_ipv6(&cable.name)?;
    let end = Interface::new(&cable.name)?;
    end.address(cable.host)?;
    end.up()?;
    let (host, guest) = (cable.host, cable.guest);
    in_thread(move || {
        sys::check(unsafe { c::setns(raw, sys::CLONE_NEWNET) })?;
        disable_ipv6(GUEST_LINK)?;
        let end = Interface::new(GUEST_LINK)?;
        end.address(guest)?;
        end.up()?;
        end.default_route(host)
    })?;
    Ok(made)
}

/// Removes a link of the host; one that is gone is fine.
pub fn remove_link(name: &str) -> io::Result<bool> {
    let mut body = ifinfo();
    attribute(&mut body, IFLA_IFNAME, &zero_terminated(name)?);
    match netlink(RTM_DELLINK, 0, &body) {
        Ok(()) => Ok(true),
        Err(err) if err.raw_os_error() == Some(19 /* ENODEV */) => Ok(false),
        Err(err) => Err(err),
    }
}

/// A namespace belongs to a thread; each is changed in one that ends with it.
fn in_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    std::thread::spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
}

fn disable_ipv6(link: &str) -> io::Result<()> {
    match std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1") {
        // A kernel without IPv6.
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

// ---- addresses and routes, by the classic requests ---------------------------

struct Interface {
    socket: OwnedFd,
    name: [u8; 16],
}

impl Interface {
    fn new(name: &str) -> io::Result<Interface> {
        let mut padded = [0u8; 16];
        if name.len() >= padded.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "link name is too long"));
        }
        padded[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the descriptor is new.
        let socket = unsafe {
            OwnedFd::from_raw_fd(sys::check(socket(2 /* AF_INET */, 2 /* SOCK_DGRAM */ | sys::O_CLOEXEC, 0))?)
        };
        Ok(Interface { socket, name: padded })
    }

    fn request(&self, code: std::ffi::c_ulong, value: &[u8]) -> io::Result<()> {
        let mut ifreq = [0u8; 40];
        ifreq[..16].copy_from_slice(&self.name);
        ifreq[16..16 + value.len()].copy_from_slice(value);
        // SAFETY: a whole `struct ifreq`.
        sys::check(unsafe { ioctl(self.socket.as_raw_fd(), code, ifreq.as_mut_ptr()) }).map(drop)
    }

    fn up(&self) -> io::Result<()> {
        self.request(0x8914 /* SIOCSIFFLAGS */, &0x1i16.to_ne_bytes() /* IFF_UP */)
    }

    /// One end of a /31.
    fn address(&self, address: Ipv4Addr) -> io::Result<()> {
        self.request(0x8916 /* SIOCSIFADDR */, &sockaddr(address))?;
        self.request(0x891c /* SIOCSIFNETMASK */, &sockaddr(Ipv4Addr::new(255, 255, 255, 254)))
    }

    fn default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // `struct rtentry` of 64-bit Linux.
        let mut route = [0u8; 120];
        route[8..24].copy_from_slice(&sockaddr(Ipv4Addr::UNSPECIFIED));
        route[24..40].copy_from_slice(&sockaddr(gateway));
        route[40..56].copy_from_slice(&sockaddr(Ipv4Addr::UNSPECIFIED));
        route[56..58].copy_from_slice(&0x3u16.to_ne_bytes()); // RTF_UP | RTF_GATEWAY
        // SAFETY: a whole structure; the device pointer in it is null.
        sys::check(unsafe { ioctl(self.socket.as_raw_fd(), 0x890b /* SIOCADDRT */, route.as_mut_ptr()) }).map(drop)
    }
}

fn sockaddr(address: Ipv4Addr) -> [u8; 16] {
    let mut raw = [0u8; 16];
    raw[..2].copy_from_slice(&2u16.to_ne_bytes());
    raw[4..8].copy_from_slice(&address.octets());
    raw
}

// ---- links, by rtnetlink ------------------------------------------------------

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const NLM_F_CREATE_EXCL: u16 = 0x600;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

fn new_cable(cable: &Cable, netns: RawFd) -> io::Result<()> {
    let mut peer = ifinfo();
    attribute(&mut peer, IFLA_IFNAME, &zero_terminated(GUEST_LINK)?);
    attribute(&mut peer, IFLA_MTU, &cable.mtu.to_ne_bytes());
    attribute(&mut peer, IFLA_NET_NS_FD, &netns.to_ne_bytes());
    let mut data = Vec::new();
    attribute(&mut data, VETH_INFO_PEER, &peer);
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, b"veth");
    attribute(&mut info, IFLA_INFO_DATA, &data);
    let mut body = ifinfo();
    attribute(&mut body, IFLA_IFNAME, &zero_terminated(&cable.name)?);
    attribute(&mut body, IFLA_MTU, &cable.mtu.to_ne_bytes());
    attribute(&mut body, IFLA_LINKINFO, &info);
    netlink(RTM_NEWLINK, NLM_F_CREATE_EXCL, &body)
}

/// An empty `struct ifinfomsg`.
fn ifinfo() -> Vec<u8> {
    vec![0; 16]
}

fn zero_terminated(text: &str) -> io::Result<Vec<u8>> {
    Ok(CString::new(text)?.into_bytes_with_nul())
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn netlink(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is new; buffers are whole.
    unsafe {
        let fd = OwnedFd::from_raw_fd(sys::check(socket(16 /* AF_NETLINK */, 3 /* SOCK_RAW */ | sys::O_CLOEXEC, 0))?);
        let mut message = Vec::with_capacity(body.len() + 16);
        message.extend_from_slice(&(body.len() as u32 + 16).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | 0x5/* REQUEST | ACK */).to_ne_bytes());
        message.extend_from_slice(&1u32.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(body);
        if send(fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answer = [0u8; 4096];
        let got = recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0);
        if got < 20 {
            return Err(io::Error::last_os_error());
        }
        // NLMSG_ERROR: the number after the header is 0 or a negative errno.
        match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }
}
