# VM entry and exit as a function that returns: it loads the guest's registers, enters the guest, and saves the
# registers at the exit.
#
# In:  RDI = address of the EntryBlock.
# Out: EAX = 0: the guest has exited
#            1: VMfailInvalid, 2: VMfailValid
#            3: not entered, because an event is pending for the guest
#      RBX, RBP and RSP are preserved. Every other register is lost, unlike in the C ABI, and the caller declares that.
#
# The state of SSE, AVX and x87 is the guest's at all times, since Vidar is compiled without them.

.section .text.vidar_vmx_enter, "ax"
.code64
.balign 16
.global vidar_vmx_enter
.type vidar_vmx_enter, @function
vidar_vmx_enter:
    push rbp
    push rbx
    push rdi

    # HOST_RSP changes only with the depth of the caller's stack. VMWRITE is slow, so it is executed only if the value
    # has changed.
    cmp rsp, [rdi + {host_rsp}]
    je 2f
    mov [rdi + {host_rsp}], rsp
    mov eax, {host_rsp_field}
    vmwrite rax, rsp
    jna vidar_vmx_entry_failed
2:
    # From this check on, the handler of a pending event aborts the entry (host::exceptions::EntryWindow). No register
    # that matters is lost, since the guest's registers are all in the block and RSP does not change.
.global vidar_vmx_window_start
vidar_vmx_window_start:
    cmp byte ptr gs:[{pending}], 0
    jne vidar_vmx_entry_aborted
    cmp byte ptr [rdi + {launched}], 0      # for the jump below, since MOV leaves the flags alone
    mov rax, [rdi + {rax}]
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
    je 3f
    vmresume
    jmp vidar_vmx_entry_failed
3:
    vmlaunch
.global vidar_vmx_window_end
vidar_vmx_window_end:

vidar_vmx_entry_failed:
    mov eax, 1
    jc 4f
    mov eax, 2
    jmp 4f

.global vidar_vmx_entry_aborted
vidar_vmx_entry_aborted:
    mov eax, 3
    jmp 4f

    # HOST_RIP. The CPU has loaded HOST_RSP, and the block's address is on top of that stack.
.global vidar_vmx_exit
vidar_vmx_exit:
    push rdi
    mov rdi, [rsp + 8]
    mov [rdi + {rax}], rax
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
    mov byte ptr [rdi + {launched}], 1
    xor eax, eax

4:  pop rdi
    pop rbx
    pop rbp
    ret
.size vidar_vmx_enter, . - vidar_vmx_enter
