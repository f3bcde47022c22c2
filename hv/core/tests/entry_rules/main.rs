//! The rules of VM entry and of VMRUN: a state as Vidar sets it up breaks none of them, and for each rule there is a
//! state that breaks it alone.

mod page;
mod svm;
mod vmx;
mod vmx_cases;
