# From GRUB's 32-bit protected mode to Rust in long mode, wherever the image was loaded.
#
# In:  EAX = what the loader says it is, EBX = physical address of its boot information, paging off.
#      Multiboot2 Specification 2.0, 3.3 "I386 machine state"
# Out: start(EAX, EBX, the image's physical address) on the boot stack, in the top 2 GiB, with the first 4 GiB mapped
#      twice by 2 MiB pages, at 0 (for the jump alone) and at the direct map, and the image's 2 MiB at its own address.
#
# EBP holds the physical address of the image. A symbol minus the image base is the symbol's offset in the image.

.section .boot.text, "ax"
.code32
.global vidar_start32
vidar_start32:
    cli
    cld
    # Only a call reveals the address of this code, and a call needs a stack. The second word of the boot information
    # serves as one, since nobody reads it meanwhile, and is restored afterwards.
    mov ecx, [ebx + 4]
    lea esp, [ebx + 8]
    call vidar_here
vidar_here:
    pop ebp
    mov [ebx + 4], ecx
    sub ebp, offset vidar_here - {image_base}
    lea esp, [ebp + vidar_boot_stack_top - {image_base}]
    push 2                              # EFLAGS without AC, NT, IOPL and TF
    popfd
    mov edi, eax                        # for the call at the end
    mov esi, ebx

    # Long mode is reported by CPUID 8000_0001h: EDX bit 29.
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb vidar_no_long_mode
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc vidar_no_long_mode
    mov ebx, edx
    and ebx, 1 << 20                    # no-execute; without it Rust refuses to start
    shr ebx, 9                          # moved to the position of EFER.NXE

    # Four page directories of 2 MiB pages: present, writable, large.
    lea edx, [ebp + vidar_boot_pd - {image_base}]
    mov ecx, 0
2:  mov eax, ecx
    shl eax, 21
    or eax, 0x83
    mov [edx + ecx * 8], eax
    inc ecx
    cmp ecx, 2048
    jb 2b

    # One page-directory-pointer table serves both the identity map and the direct map. Another maps the image by one
    # page of 2 MiB.
    lea eax, [edx + 3]
    lea edx, [ebp + vidar_boot_pdpt_low - {image_base}]
    mov ecx, 0
3:  mov [edx + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jb 3b
    lea eax, [ebp + 0x83]
    mov [ebp + vidar_boot_pd_image - {image_base}], eax
    lea eax, [ebp + vidar_boot_pd_image - {image_base} + 3]
    mov [ebp + vidar_boot_pdpt_image - {image_base} + 510 * 8], eax

    add edx, 3
    mov [ebp + vidar_boot_pml4 - {image_base}], edx
    mov [ebp + vidar_boot_pml4 - {image_base} + {direct_map_slot} * 8], edx
    lea eax, [ebp + vidar_boot_pdpt_image - {image_base} + 3]
    mov [ebp + vidar_boot_pml4 - {image_base} + 511 * 8], eax

    # The control registers get known values. Firmware may leave 5-level paging, process-context identifiers, or CET
    # switched on, and the loader may have cleared nothing in CR4 but PAE.
    mov eax, 1 << 5                     # PAE
    mov cr4, eax
    lea eax, [ebp + vidar_boot_pml4 - {image_base}]
    mov cr3, eax

    mov ecx, 0xc0000080                 # IA32_EFER
    xor edx, edx
    mov eax, 1 << 8                     # LME
    or eax, ebx                         # NXE, if the CPU has it
    wrmsr

    mov eax, 0x80010031                 # PG, WP, NE, ET, PE
    mov cr0, eax
    lea eax, [ebp + vidar_boot_gdt - {image_base}]
    mov [ebp + vidar_boot_gdtr - {image_base} + 2], eax
    lgdt [ebp + vidar_boot_gdtr - {image_base}]
    push 8
    lea eax, [ebp + vidar_start64_low - {image_base}]
    push eax
    retf

# Rust needs long mode, so this code itself writes the message, to COM1 and to the text screen.
vidar_no_long_mode:
    lea esi, [ebp + vidar_no_long_mode_text - {image_base}]
    mov edi, 0xb8000
5:  lodsb
    test al, al
    jz 7f
    mov bl, al
    cmp al, ' '                         # CR and LF go to the serial port alone
    jb 8f
    mov [edi], al
    mov byte ptr [edi + 1], 0x0f
    add edi, 2
8:
    mov ecx, 100000                     # without a UART the text must still reach the screen
6:  mov dx, 0x3fd
    in al, dx
    test al, 0x20
    loopz 6b
    mov al, bl
    mov dx, 0x3f8
    out dx, al
    jmp 5b
7:  hlt
    jmp 7b

vidar_no_long_mode_text:
    .asciz "vidar: error: cannot start: this CPU has no 64-bit mode (long mode); use a 64-bit machine, or boot the bare menu entry.\r\n"

.code64
vidar_start64_low:
    movabs rax, offset vidar_start64
    jmp rax

.balign 8
vidar_boot_gdt:
    .quad 0
    .quad 0x00209b0000000000            # 64-bit code, in use until Rust loads its own GDT
vidar_boot_gdtr:
    .short 15
    .long 0                             # address of the table

.section .text.vidar_start64, "ax"
.code64
vidar_start64:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    # EDI and ESI hold the arguments. The upper halves of RDI and RSI are undefined after the change of mode, and these
    # moves clear them.
    mov edi, edi
    mov esi, esi
    mov edx, ebp
    # The stack, by its address in the direct map. It stays in use until Vidar has its own page tables and stacks.
    movabs rsp, offset vidar_boot_stack_top - {image_base} + {direct_map}
    add rsp, rdx
    xor ebp, ebp                        # backtraces end here
    call {start}
    ud2

.section .boot.bss, "aw", @nobits
.balign 4096
vidar_boot_pml4: .skip 4096
vidar_boot_pdpt_low: .skip 4096
vidar_boot_pdpt_image: .skip 4096
vidar_boot_pd_image: .skip 4096
vidar_boot_pd: .skip 4 * 4096
vidar_boot_stack: .skip 4 * 4096
vidar_boot_stack_top:
