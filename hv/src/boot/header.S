# The headers by which a loader recognises the image. GRUB's command `multiboot2` looks for the Multiboot2 header. The
# Multiboot 1 header has one purpose: a user who writes `multiboot` instead gets an explanation from Vidar. Multiboot2
# Specification 2.0, 3.1.1 "The layout of Multiboot2 header"; Multiboot Specification 0.6.96, 3.1.1.

.section .multiboot, "a"

.balign 8
vidar_multiboot2_header:
    .long 0xe85250d6                    # magic
    .long 0                             # architecture: i386, 32-bit protected mode
    .long vidar_multiboot2_end - vidar_multiboot2_header
    .long -(0xe85250d6 + 0 + (vidar_multiboot2_end - vidar_multiboot2_header))

    .balign 8                           # 3.1.6: entry address
    .short 3, 0
    .long 12
    .long vidar_start32 - {image_base} + {link_address}

    .balign 8                           # 3.1.11: relocatable, to the lowest free 2 MiB page below 4 GiB
    .short 10, 1                        # optional: a loader that cannot relocate the image loads it at its link address
    .long 24
    .long {link_address}
    .long 0xffffffff
    .long {region_size}
    .long 1

    .balign 8                           # 3.1.10: a framebuffer of any size, optional, since text mode will do
    .short 5, 1
    .long 20
    .long 0, 0, 0

    .balign 8                           # 3.1.12: modules on page boundaries
    .short 6, 0
    .long 8

    .balign 8                           # end
    .short 0, 0
    .long 8
vidar_multiboot2_end:

.balign 4
    .long 0x1badb002                    # magic
    .long 0                             # flags: no requests
    .long -(0x1badb002 + 0)             # checksum
