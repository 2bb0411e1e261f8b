//! The socket of an endpoint that has one connection.
//!
//! Where the kernel may hand over many datagrams as one (UDP_GRO), quinn has buffers for all that may come at once: 3 MB that
//! are zeroed for each endpoint. That is right for a collector; an agent hears one acknowledgement a second.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use nix::sys::socket::{setsockopt, sockopt::UdpGroSegment};
use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// A socket that receives each datagram by itself.
#[derive(Debug)]
struct SmallSocket(Arc<dyn AsyncUdpSocket>);

/// Wraps a socket for an endpoint with one connection.
pub(super) fn wrap(socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let same = socket.try_clone()?;
    let wrapped = TokioRuntime.wrap_udp_socket(socket)?;
    Ok(match setsockopt(&same, UdpGroSegment, &false) {
        Ok(()) => Arc::new(SmallSocket(wrapped)),
        // Where it cannot be turned off the large buffers are needed.
        Err(_) => wrapped,
    })
}

impl AsyncUdpSocket for SmallSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}
