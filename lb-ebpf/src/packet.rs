//! The frame in the NIC's buffer. Everything the programs do to packets goes through [`XdpFrame`].

use aya_ebpf::{bindings::xdp_md, helpers::generated};
use lb_common::{
    frame::{Frame, Wire},
    parse::extensions::Place,
};

use crate::extensions;

/// The program's argument. Functions with a stack of their own take it, and make their own [`XdpFrame`] of it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Context(*mut xdp_md);

impl Context {
    /// The context of this run.
    ///
    /// # Safety
    /// `pointer` is the program's own argument. Of the frames made of it, by whatever function, only one is in use at
    /// any time, and none any more after another one has moved the frame's start or end.
    #[inline(always)]
    pub const unsafe fn new(pointer: *mut xdp_md) -> Self {
        Self(pointer)
    }

    /// The frame as it is now.
    #[inline(always)]
    pub fn frame(self) -> XdpFrame {
        // Volatile, so that the compiler never passes the two as 32-bit numbers into a function of its own making: the
        // verifier would no longer know them for packet pointers.
        // SAFETY: the kernel's context is valid for the program's run.
        let (start, end) = unsafe {
            (
                (&raw const (*self.0).data).read_volatile(),
                (&raw const (*self.0).data_end).read_volatile(),
            )
        };
        XdpFrame { context: self, start: start as usize as *mut u8, end: end as usize as *mut u8 }
    }

    /// Number of the NIC the frame came in by.
    #[inline(always)]
    pub fn ingress(self) -> u32 {
        // SAFETY: the kernel's context is valid for the program's run.
        unsafe { (&raw const (*self.0).ingress_ifindex).read_volatile() }
    }

    /// For helpers of the kernel.
    #[inline(always)]
    pub const fn pointer(self) -> *mut xdp_md {
        self.0
    }
}

/// The frame in hand. Its pointers are as of its making; whatever moves them consumes it.
#[derive(Debug)]
pub struct XdpFrame {
    context: Context,
    start: *mut u8,
    end: *mut u8,
}

impl XdpFrame {
    /// What it was made of.
    #[inline(always)]
    pub const fn context(&self) -> Context {
        self.context
    }

    /// Moves the start of the frame by `bytes`: negative makes room in front, positive cuts off. `None` if there is no
    /// room.
    #[inline(always)]
    pub fn move_start(self, bytes: i32) -> Option<Self> {
        // SAFETY: the helper gets the program's own context; the old pointers end with `self`.
        unsafe {
            match generated::bpf_xdp_adjust_head(self.context.0, bytes) {
                0 => Some(self.context.frame()),
                _ => None,
            }
        }
    }

    /// Cuts the frame to `length` bytes; `None` if that is more than it has.
    #[inline(always)]
    pub fn cut(self, length: usize) -> Option<Self> {
        let more = self.length() as i64 - length as i64;
        if more < 0 {
            return None;
        }
        // SAFETY: as above.
        unsafe {
            match generated::bpf_xdp_adjust_tail(self.context.0, -(more as i32)) {
                0 => Some(self.context.frame()),
                _ => None,
            }
        }
    }

    /// The frame for a loop over its bytes.
    #[inline(always)]
    pub const fn stepwise(&self) -> Stepwise<'_> {
        Stepwise(self)
    }

    #[inline(always)]
    fn pointer<T>(&self, offset: usize) -> Option<*mut T> {
        let first = self.start.wrapping_add(offset);
        if first.wrapping_add(size_of::<T>()) > self.end { None } else { Some(first.cast()) }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn length(&self) -> usize {
        (self.end as usize).wrapping_sub(self.start as usize)
    }

    #[inline(always)]
    fn view<T: Wire>(&self, offset: usize) -> Option<&T> {
        // SAFETY: the bytes lie within the frame (the verifier checks it, too), any bytes at any address are a `T`
        // (`Wire`), and the frame is ours alone while the program runs and borrowed while the reference lives.
        self.pointer::<T>(offset).map(|header| unsafe { &*header })
    }

    #[inline(always)]
    fn view_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as above, and the borrow is exclusive.
        self.pointer::<T>(offset).map(|header| unsafe { &mut *header })
    }

    #[inline(always)]
    fn extensions(&self) -> Place {
        extensions::end(self)
    }
}

/// A frame whose extension headers have been walked over already, for functions below which the stack has no room for the walk (Linux
/// 6.1 takes 32 bytes for any call).
#[derive(Debug)]
pub struct Walked {
    frame: XdpFrame,
    end: Place,
}

impl Walked {
    /// With where they end.
    #[inline(always)]
    pub const fn new(frame: XdpFrame, end: Place) -> Self {
        Self { frame, end }
    }
}

impl Frame for Walked {
    #[inline(always)]
    fn length(&self) -> usize {
        self.frame.length()
    }

    #[inline(always)]
    fn view<T: Wire>(&self, offset: usize) -> Option<&T> {
        self.frame.view(offset)
    }

    #[inline(always)]
    fn view_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        self.frame.view_mut(offset)
    }

    #[inline(always)]
    fn extensions(&self) -> Place {
        self.end
    }
}

/// The same frame with its end read anew for each view: from one end, the compiler would work out for a whole loop how
/// often it may run, and leave out the comparison with the end by which the verifier knows that each step is within the
/// frame.
#[derive(Debug)]
pub struct Stepwise<'a>(&'a XdpFrame);

impl Frame for Stepwise<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.length()
    }

    #[inline(always)]
    fn view<T: Wire>(&self, offset: usize) -> Option<&T> {
        // SAFETY: the kernel's context is valid for the program's run.
        let end = unsafe { (&raw const (*self.0.context.0).data_end).read_volatile() } as usize;
        let frame = XdpFrame { end: end as *mut u8, ..*self.0 };
        // SAFETY: as for `XdpFrame`; the reference borrows the frame that this one stands for.
        frame.pointer::<T>(offset).map(|header| unsafe { &*header })
    }

    fn view_mut<T: Wire>(&mut self, _: usize) -> Option<&mut T> {
        None
    }
}
