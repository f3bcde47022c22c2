# VMRUN as a function that returns: it loads the guest's registers, enters the guest, and saves the registers at the
# exit.
#
# In:  RDI = address of the EntryBlock.
# Out: RBX, RBP and RSP are preserved. Every other register is lost, unlike in the C ABI, and the caller declares that.
#
# GIF is 1 only in the guest: VMRUN sets it, and #VMEXIT clears it. So an NMI that arrives outside waits for the guest,
# and Vidar need not do anything for it. The CPU itself switches RAX and RSP. VMLOAD and VMSAVE switch what VMRUN does
# not, before any Rust runs. The state of SSE, AVX and x87 is the guest's at all times, since Vidar is compiled without
# them.

.section .text.vidar_svm_enter, "ax"
.code64
.balign 16
.global vidar_svm_enter
.type vidar_svm_enter, @function
vidar_svm_enter:
    push rbp
    push rbx
    push rdi

    mov rax, [rdi + {vmcb_page}]
    mov rcx, [rdi + {rax}]
    mov [rax + {vmcb_rax}], rcx
    mov rax, [rdi + {vmcb}]
    mov rcx, [rdi + {rcx}]
    mov rdx, [rdi + {rdx}]
    mov rbx, [rdi + {rbx}]
    mov rbp, [rdi + {rbp}]
    mov rsi, [rdi + {rsi}]
    mov r8, [rdi + {r8}]
    mov r9, [rdi + {r9}]
    mov r10, [rdi + {r10}]
    mov r11, [rdi + {r11}]
    mov r12, [rdi + {r12}]
    mov r13, [rdi + {r13}]
    mov r14, [rdi + {r14}]
    mov r15, [rdi + {r15}]
    mov rdi, [rdi + {rdi}]
    vmload rax
    vmrun rax
    vmsave rax

    # The block's address is on top of the stack.
    push rdi
    mov rdi, [rsp + 8]
    mov [rdi + {rcx}], rcx
    mov [rdi + {rdx}], rdx
    mov [rdi + {rbx}], rbx
    mov [rdi + {rbp}], rbp
    mov [rdi + {rsi}], rsi
    pop qword ptr [rdi + {rdi}]
    mov [rdi + {r8}], r8
    mov [rdi + {r9}], r9
    mov [rdi + {r10}], r10
    mov [rdi + {r11}], r11
    mov [rdi + {r12}], r12
    mov [rdi + {r13}], r13
    mov [rdi + {r14}], r14
    mov [rdi + {r15}], r15
    mov rax, [rdi + {host}]
    vmload rax
    mov rax, [rdi + {vmcb_page}]
    mov rcx, [rax + {vmcb_rax}]
    mov [rdi + {rax}], rcx

    pop rdi
    pop rbx
    pop rbp
    ret
.size vidar_svm_enter, . - vidar_svm_enter
