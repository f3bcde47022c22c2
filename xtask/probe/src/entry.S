// The 32-bit entry of the Linux boot protocol. The image may be loaded at any multiple of 2 MiB. On entry ESI holds the
// address of boot_params, segments are flat, and paging is off. The code enters long mode, with the first 4 GiB mapped
// to themselves and the image mapped at -2 GiB.

.set PAGE, 4096
.set PRESENT_WRITABLE_USER, 0x7
.set LARGE_PAGE, 0xe7                   // present, writable, user, accessed, dirty, 2 MiB
.set BOOT_PARAMS_SCRATCH, 0x1e4         // four bytes that the protocol leaves to the kernel's entry

.section .head, "ax"
.code32
.globl probe_start
probe_start:
    cli
    cld
    // A call finds out the address that this code runs at. It needs a stack, and the only memory that is known to be
    // free is the scratch field of boot_params.
    lea esp, [esi + BOOT_PARAMS_SCRATCH + 4]
    call probe_here
.globl probe_here
probe_here:
    pop ebp
    sub ebp, offset probe_here_offset   // EBP = load address of the image

    lea edi, [ebp + bss_offset]
    mov ecx, offset bss_size
    xor eax, eax
    rep stosb

    // EBX = the page tables, in this order: PML4, low PDPT, high PDPT, four low directories, one high directory.
    lea ebx, [ebp + page_tables_offset]
    lea eax, [ebx + 1 * PAGE + PRESENT_WRITABLE_USER]
    mov [ebx], eax
    lea eax, [ebx + 2 * PAGE + PRESENT_WRITABLE_USER]
    mov [ebx + 511 * 8], eax
    lea eax, [ebx + 7 * PAGE + PRESENT_WRITABLE_USER]
    mov [ebx + 2 * PAGE + 510 * 8], eax
    lea eax, [ebp + LARGE_PAGE]
    mov [ebx + 7 * PAGE], eax

    lea eax, [ebx + 3 * PAGE + PRESENT_WRITABLE_USER]
    lea edi, [ebx + 1 * PAGE]
    mov ecx, 4
probe_directories:
    mov [edi], eax
    add eax, PAGE
    add edi, 8
    dec ecx
    jnz probe_directories

    mov eax, LARGE_PAGE
    lea edi, [ebx + 3 * PAGE]
    mov ecx, 4 * 512
probe_pages:
    mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz probe_pages

    mov cr3, ebx
    mov eax, cr4
    or eax, 0x620                       // PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080                 // IA32_EFER
    rdmsr
    or eax, 0x100                       // LME
    wrmsr
    mov eax, cr0
    and eax, 0xfffffff3                 // clears EM and TS
    or eax, 0x80000002                  // PG, MP
    mov cr0, eax

    lea eax, [ebp + probe_boot_gdt_offset]
    mov [ebp + probe_boot_gdt_pointer_offset + 2], eax
    lgdt [ebp + probe_boot_gdt_pointer_offset]
    // The far jump takes its target from memory, since the scratch field is too small to be the stack of a far return.
    lea eax, [ebp + probe_long_offset]
    mov [ebp + probe_far_offset], eax
    jmp fword ptr [ebp + probe_far_offset]

.code64
.globl probe_long
probe_long:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset stack_top
    mov edi, esi                        // boot_params
    mov esi, ebp                        // load address
    xor ebp, ebp
    mov rax, offset {main}
    call rax
    ud2

.balign 8
.globl probe_far
probe_far:
    .long 0
    .word 0x08
.balign 8
.globl probe_boot_gdt
probe_boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            // 0x08: 64-bit code
    .quad 0x00cf93000000ffff            // 0x10: data
.globl probe_boot_gdt_pointer
probe_boot_gdt_pointer:
    .word 23
    .long 0

.section .page_tables, "aw", @nobits
.balign 4096
.globl page_tables
page_tables:
    .skip 8 * PAGE

.section .stack, "aw", @nobits
.balign 4096
    .skip 16 * PAGE
.globl stack_top
stack_top:
