# Where a further CPU begins after a start-up IPI, and how it gets from real mode to Rust.
#
# The assembler does not accept the difference of two symbols as an address. Instructions that need one are given as
# bytes.
#
# The first part is copied to a page below 1 MiB, which is mapped at its own address, read-only and executable. Whoever
# copies it fills in the fields at its end, in which `page` is the address of that page.
#
# In:  BP = CS of the page whose stub has led here, or 0 (its value after INIT) if the start-up IPI named this
#      page itself.
# Out: {main}(index of the CPU's slot, vector of its start-up IPI) on the CPU's own stack, which is found by the APIC
#      ID. A CPU without a slot sends itself an INIT, and so waits for a start-up IPI as before.

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
1:  # Known values, as in trampoline.S. A real INIT clears these registers, but not every CPU gets here by one.
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
    # The APIC ID, read as in arch::apic::id. The local APIC is enabled, since it has received a start-up IPI.
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
    xor ebp, ebp                        # backtraces end here
    mov esi, r8d
    call [rip + {main}]
    # This CPU has no slot. It cannot stay here: it has no stack and no handlers, so an NMI would end in a triple fault,
    # which resets the machine. After an INIT the CPU holds NMIs until a start-up IPI comes. The INIT is sent to the
    # CPU's own ID, since the shorthand for the sender is not valid with INIT. AMD APM Vol. 2, 16.5 "Interprocessor
    # Interrupts (IPI)", and Intel SDM Vol. 3A, 11.6.1 "Interrupt Command Register (ICR)".
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
