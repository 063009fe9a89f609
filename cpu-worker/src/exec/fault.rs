//! Exceptions on their way from the instruction that raised them to their delivery.

use super::{Exit, Vcpu};

/// Exception vectors (SDM vol. 3, table 6-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the SDM's")]
pub enum Vector {
    De = 0,
    Db = 1,
    Nmi = 2,
    Bp = 3,
    Of = 4,
    Br = 5,
    Ud = 6,
    Nm = 7,
    Df = 8,
    Ts = 10,
    Np = 11,
    Ss = 12,
    Gp = 13,
    Pf = 14,
    Mf = 16,
    Ac = 17,
    Mc = 18,
    Xm = 19,
}

/// An exception with its error code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Which.
    pub vector: Vector,
    /// The error code of those that push one (8, 10–14, 17); ignored for the others.
    pub code: u32,
    /// For #PF, the linear address for CR2; for #DB, the bits to set in DR6.
    pub info: u64,
}

impl Vcpu {
    /// Raises an exception without error code (or with 0).
    #[cold]
    pub fn raise<T>(&mut self, vector: Vector) -> Result<T, Exit> {
        self.raise_code(vector, 0)
    }

    /// Raises an exception with an error code.
    #[cold]
    pub fn raise_code<T>(&mut self, vector: Vector, code: u32) -> Result<T, Exit> {
        self.pending_fault = Fault {
            vector,
            code,
            info: 0,
        };
        Err(Exit::Fault)
    }

    /// Raises #GP(0), the commonest.
    #[cold]
    pub fn gp0<T>(&mut self) -> Result<T, Exit> {
        self.raise(Vector::Gp)
    }

    /// Raises #UD.
    #[cold]
    pub fn ud<T>(&mut self) -> Result<T, Exit> {
        self.raise(Vector::Ud)
    }

    /// Raises a page fault at a linear address.
    #[cold]
    pub fn page_fault<T>(&mut self, linear: u64, code: u32) -> Result<T, Exit> {
        self.pending_fault = Fault {
            vector: Vector::Pf,
            code,
            info: linear,
        };
        Err(Exit::Fault)
    }
}
