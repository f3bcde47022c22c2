# From GRUB's 32-bit protected mode to Rust in long mode, wherever the image was loaded.
#
# In:  EAX = what the loader says it is, EBX = physical address of its boot information, paging off.
#      Multiboot2 Specification 2.0, 3.3 "I386 machine state"
# Out: vidar_start(EAX, EBX, the image's physical address) on the boot stack, in the top 2 GiB, with the first 4 GiB mapped
#      twice by 2 MiB pages, at 0 (for the jump alone) and at the direct map, and the image's 2 MiB at its own address.
#
# A symbol less the image base is its distance from where the image begins, which EBP has.

.section .boot.text, "ax"
.code32
.global vidar_start32
vidar_start32:
    cli
    cld
    # Only a call tells where this is, and a call wants a stack: the second word of the boot information, which nobody
    # reads meanwhile.
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
    and ebx, 1 << 20                    # no-execute, of which Rust says what it needs
    shr ebx, 9                          # to where EFER has it

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

    # One directory-pointer table for the identity and the direct map, one for the image with a page of 2 MiB.
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

    # The control registers get known values. Firmware may leave 5-level paging, process-context identifiers, or CET switched
    # on, and a loader may take no more out of CR4 than PAE.
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

# There is no Rust to say it in: the sentence goes to COM1 and to the text screen from here.
vidar_no_long_mode:
    lea esi, [ebp + vidar_no_long_mode_text - {image_base}]
    mov edi, 0xb8000
5:  lodsb
    test al, al
    jz 7f
    mov bl, al
    cmp al, ' '                         # the ends of the line are for the serial port alone
    jb 8f
    mov [edi], al
    mov byte ptr [edi + 1], 0x0f
    add edi, 2
8:
    mov ecx, 100000                     # a line that is not there must not stop the screen
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
    .quad 0x00209b0000000000            # 64-bit code, for the way to the GDT that Rust builds
vidar_boot_gdtr:
    .short 15
    .long 0                             # where the table is

.section .text.vidar_start64, "ax"
.code64
vidar_start64:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    # EDI and ESI are what they are to be; the halves above them are undefined after a change of mode.
    mov edi, edi
    mov esi, esi
    mov edx, ebp
    # The stack by its address in the direct map, where it stays until Vidar has its own tables and stacks.
    movabs rsp, offset vidar_boot_stack_top - {image_base} + {direct_map}
    add rsp, rdx
    xor ebp, ebp                        # where a backtrace ends
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
