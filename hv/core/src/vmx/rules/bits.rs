//! The bits of the controls that Vidar never sets of its own accord, so that only the rules know them.
//! [`controls`](crate::vmx::controls) has the others. Intel SDM Vol. 3C, 25.6 "VM-Execution Control Fields" to 25.8
//! "VM-Entry Control Fields".

macro_rules! bits {
    ($($bit:literal $name:ident;)*) => {
        $(
            #[doc = concat!("Bit ", stringify!($bit), ".")]
            pub const $name: u32 = 1 << $bit;
        )*
    };
}

/// Pin-based controls.
pub mod pin {
    pub use crate::vmx::controls::pin::{NMI_EXITING, VIRTUAL_NMIS};

    bits! {
        0 EXTERNAL_INTERRUPT_EXITING;
        7 POSTED_INTERRUPTS;
    }
}

/// Primary processor-based controls.
pub mod primary {
    pub use crate::vmx::controls::primary::MONITOR_TRAP;

    bits! {
        17 TERTIARY;
        21 TPR_SHADOW;
        22 NMI_WINDOW;
    }
}

/// Secondary processor-based controls.
pub mod secondary {
    bits! {
        0 APIC_ACCESSES;
        4 X2APIC_MODE;
        8 APIC_REGISTERS;
        9 INTERRUPT_DELIVERY;
        13 VM_FUNCTIONS;
        14 VMCS_SHADOWING;
        17 PML;
        18 VE;
        22 MODE_BASED_EXECUTE;
        23 SUB_PAGE;
        25 TSC_SCALING;
    }
}

/// Tertiary processor-based controls. All of them have numbers below 32 here.
pub mod tertiary {
    bits! {
        2 EPT_PAGING_WRITE;
        3 GUEST_PAGING_VERIFICATION;
    }
}

/// VM functions.
pub mod function {
    bits! {
        0 EPTP_SWITCHING;
    }
}

/// VM-exit controls.
pub mod exit {
    bits! {
        15 ACKNOWLEDGE_INTERRUPT;
        22 SAVE_TIMER;
        29 LOAD_PKRS;
        31 SECONDARY;
    }
}

/// VM-entry controls.
pub mod entry {
    bits! {
        10 TO_SMM;
        11 DEACTIVATE_DUAL_MONITOR;
        22 LOAD_PKRS;
    }
}
