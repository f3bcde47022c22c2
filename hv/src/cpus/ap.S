# What a start-up IPI leads to: from real mode to Rust, for every CPU but the one that booted.
#
# The assembler knows no difference of two symbols as an address: where one is needed, the opcode is spelled out.
#
# The first part is copied to a page below 1 MiB, which is mapped at its own address, read-only and executable. `page` is
# written by whoever copies it, as are the fields at its end.
#
# In:  BP = CS of a page whose stub has led here, or 0, as INIT leaves it, if the start-up IPI named this page.
# Out: {main}(number of the CPU, vector of its start-up IPI) on the CPU's own stack, found by its APIC ID. A CPU that has no
#      stack takes an INIT, and so waits for a start-up IPI as before.

.section .rodata.vidar_ap, "a"
.balign 16
.code16
.global vidar_ap_start
vidar_ap_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    test bp, bp
    jnz 1f
    mov bp, ax
1:  # Known values, as in trampoline.S: not every CPU has come by a real INIT that cleared them.
    mov eax, 1 << 5                     # PAE
    mov cr4, eax
    # mov eax, [vidar_ap_cr3]
    .byte 0x66, 0xa1
    .short vidar_ap_cr3 - vidar_ap_start
    mov cr3, eax
    mov ecx, 0xc0000080                 # IA32_EFER
    xor edx, edx
    mov eax, 1 << 8 | 1 << 11           # LME, NXE
    wrmsr
    # lgdt with a 32-bit base
    .byte 0x66, 0x0f, 0x01, 0x16
    .short vidar_ap_gdtr - vidar_ap_start
    # CD and NW stay as firmware or the guest left them.
    mov eax, cr0
    and eax, 0x60000000                 # CD, NW
    or eax, 0x80010031                  # PG, WP, NE, ET, PE
    mov cr0, eax
    # ljmp through memory, to a 32-bit offset
    .byte 0x66, 0xff, 0x2e
    .short vidar_ap_far - vidar_ap_start

.code64
.global vidar_ap_long
vidar_ap_long:
    mov rax, [rip + vidar_ap_entry]
    jmp rax

.balign 8
vidar_ap_gdt:
    .quad 0
    .quad 0x00209b0000000000            # 64-bit code
.global vidar_ap_gdtr
vidar_ap_gdtr:
    .short 15
    .long 0                             # page + vidar_ap_gdt - vidar_ap_start
.global vidar_ap_far
vidar_ap_far:
    .long 0                             # page + vidar_ap_long - vidar_ap_start
    .short 8
.balign 8
.global vidar_ap_cr3
vidar_ap_cr3:
    .quad 0
vidar_ap_entry:
    .quad vidar_ap64
.global vidar_ap_end
vidar_ap_end:

.section .text.vidar_ap64, "ax"
.code64
vidar_ap64:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    movzx r8d, bp
    shr r8d, 8                          # the vector
    # The APIC ID, as arch::apic::id has it: the APIC is on, or there had been no start-up IPI.
    mov ecx, 0x1b                       # IA32_APIC_BASE
    rdmsr
    bt eax, 10                          # x2APIC mode
    jnc 2f
    mov ecx, 0x802                      # IA32_X2APIC_APICID
    rdmsr
    mov edx, eax
    xor r9d, r9d                        # no page
    jmp 3f
2:  shl rdx, 32
    or rax, rdx
    and rax, -4096
    movabs r9, {direct_map}
    add r9, rax                         # the page
    mov edx, [r9 + 0x20]
    shr edx, 24
3:  mov rsi, [rip + {slots}]
    mov rcx, [rip + {count}]
    xor edi, edi
4:  cmp rdi, rcx
    jae 6f
    cmp [rsi], edx
    je 5f
    add rsi, {slot_size}
    inc edi
    jmp 4b
5:  mov rsp, [rsi + {slot_stack}]
    xor ebp, ebp                        # where a backtrace ends
    mov esi, r8d
    call [rip + {main}]
    # A CPU that is none of Vidar's. It cannot stay: it has no stack and no handlers, and an NMI would be its end and the
    # machine's. After an INIT NMIs are held until a start-up IPI has come. It is sent to the CPU's own ID, since the
    # shorthand for the sender does not go with INIT. AMD APM Vol. 2, 16.5 "Interprocessor Interrupts (IPI)", and Intel SDM
    # Vol. 3A, 11.6.1 "Interrupt Command Register (ICR)".
6:  mov eax, 0x4500                     # INIT, assert
    test r9, r9
    jz 7f
    shl edx, 24
    mov [r9 + 0x310], edx
    mov [r9 + 0x300], eax
    jmp 8f
7:  mov ecx, 0x830                      # IA32_X2APIC_ICR
    wrmsr
8:  hlt
    jmp 8b
