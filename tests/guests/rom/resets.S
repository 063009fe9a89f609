/* Firmware that looks at its own ROM, and starts again after each kind of reset.
 *
 * Prints on COM1 a line for what it found, "rom: reset by ..." before each reset, and in the end "rom: passed" or "rom: failed";
 * isa-debug-exit gets the number of failures. What it counts lies in RAM, which a reset leaves alone. */
.include "pc.inc"

.set STAGE, 0x500                /* how many resets there were */
.set MAGIC, 0x504
.set MAGIC_VALUE, 0x51424F4D
.set FAILURES, 0x508
.set SPARE, 0xFF00               /* a word of the ROM that nothing else uses */

.set HOST, 0x80000000            /* i440FX at 00:00.0 */
.set ISA_PM, 0x80000B00          /* PIIX4 power management at 00:01.3 */
.set VGA, 0x80001000             /* 1234:1111 at 00:02.0 */

.section .reset, "ax"
.code16
at_reset:
    jmp start                        /* near: CS keeps the base FFFF0000h that it has after reset */
    .ascii "quintet rom"

.section .text
.code16
start:
    cli
    cld
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    mov ax, cs
    mov ds, ax
    UART_INIT
    call big_segments
    xor ax, ax
    mov es, ax
    mov eax, MAGIC_VALUE
    cmp es:[MAGIC], eax
    je again
    mov es:[MAGIC], eax
    mov dword ptr es:[STAGE], 0
    mov dword ptr es:[FAILURES], 0
    mov si, offset hello
    call puts
    call look
    call shadow
again:
    ljmp 0xF000, offset low_copy
low_copy:
    mov si, offset closed            /* what a reset does to PAM: QEMU's leaves it open */
    mov ebx, HOST + 0x58
    call pci_read
    test ah, ah
    jz 1f
    mov si, offset open
1:  call puts
    mov eax, es:[STAGE]
    inc dword ptr es:[STAGE]
    cmp eax, 4
    jae done
    mov ebx, eax
    shl ebx, 2
    mov si, offset by
    call puts
    mov si, [names + bx]
    call puts
    call flush
    jmp [ways + bx]

names: .word keyboard_name, 0, cf9_name, 0, fast_name, 0, fault_name, 0
ways:  .word keyboard, 0, cf9, 0, fast, 0, fault, 0

keyboard:
    mov al, 0xFE
    out 0x64, al
    jmp stop
cf9:
    mov dx, 0xCF9
    mov al, 2
    out dx, al
    mov al, 6
    out dx, al
    jmp stop
fast:
    mov al, 2
    out 0x92, al
    mov al, 3
    out 0x92, al
    jmp stop
fault:
    lidt [no_vectors]
    ud2
stop:
    hlt
    jmp stop

done:
    mov si, offset passed
    cmp dword ptr es:[FAILURES], 0
    je 1f
    mov si, offset failed
1:  call puts
    call flush
    mov al, es:[FAILURES]
    mov dx, EXIT_PORT
    out dx, al
    jmp stop

/* What hardware leaves: nothing set up. */
look:
    mov esi, 0xFFFF0000              /* the ROM below 4 GiB and below 1 MiB is the same */
    mov edi, 0x000F0000
    mov ecx, 0x4000
    xor bp, bp
1:  mov eax, fs:[esi]
    cmp eax, fs:[edi]
    je 2f
    inc bp
2:  add esi, 4
    add edi, 4
    dec ecx
    jnz 1b
    mov si, offset same
    test bp, bp
    call verdict
    mov ebx, VGA + 0x10              /* a base register: sized, not placed */
    call pci_read
    cmp eax, 8
    mov si, offset unplaced
    call verdict
    mov dx, 0x4D0
    in ax, dx
    test ax, ax
    mov si, offset edges
    call verdict
    mov ebx, ISA_PM + 0x58           /* for whom it may concern; QEMU says 00 where it has SMM */
    call pci_read
    mov si, offset smm
    push eax
    call puts
    pop eax
    shr eax, 24
    call hex
    call end_line
    mov ebx, VGA + 0x30              /* the VGA's BIOS, if there is one */
    mov eax, 0xFEB00001
    call pci_write
    mov ebx, VGA + 0x04
    mov eax, 2
    call pci_write
    mov ebx, VGA + 0x30
    call pci_read
    test eax, eax
    mov si, offset no_vga_rom
    jz puts
    mov si, offset vga_rom
    call puts
    mov esi, 0xFEB00000
    mov eax, fs:[esi]
    mov fs:[esi], edi                /* goes nowhere */
    cmp eax, fs:[esi]
    jne 1f
    call hex
    mov al, ah
    call hex
1:  jmp end_line

/* The PAM register of F0000h through its four states. This runs below 4 GiB. */
shadow:
    mov ebp, 0xF0000 + SPARE
    mov eax, fs:[ebp]
    mov dword ptr fs:[ebp], 0x12345678
    cmp eax, fs:[ebp]
    mov si, offset read_only
    call verdict
    mov al, 0x30                     /* RAM, to which the ROM is copied */
    call pam
    mov esi, 0xFFFF0000
    mov edi, 0x000F0000
    mov ecx, 0x4000
1:  mov eax, fs:[esi]
    mov fs:[edi], eax
    add esi, 4
    add edi, 4
    dec ecx
    jnz 1b
    mov dword ptr fs:[ebp], 0x12345678
    cmp dword ptr fs:[ebp], 0x12345678
    mov si, offset writable
    call verdict
    mov al, 0x10                     /* read RAM, write nothing */
    call pam
    mov dword ptr fs:[ebp], 0
    cmp dword ptr fs:[ebp], 0x12345678
    mov si, offset shadowed
    call verdict
    mov al, 0x20                     /* read ROM, write RAM */
    call pam
    mov dword ptr fs:[ebp], 0x55667788
    cmp dword ptr fs:[ebp], -1
    mov si, offset write_only
    call verdict
    mov al, 0x10
    call pam
    mov si, offset behind            /* QEMU writes nothing there */
    cmp dword ptr fs:[ebp], 0x55667788
    je 1f
    mov si, offset not_behind
1:  call puts
    mov al, 0x00                     /* ROM alone */
    call pam
    cmp dword ptr fs:[ebp], -1
    mov si, offset back
    jmp verdict

/* PAM0 = AL */
pam:
    mov ebx, HOST + 0x58
    push eax
    call pci_read
    pop edx
    mov ah, dl
    jmp pci_write

/* EAX = register EBX */
pci_read:
    mov dx, 0xCF8
    mov eax, ebx
    out dx, eax
    mov dx, 0xCFC
    in eax, dx
    ret

/* register EBX = EAX */
pci_write:
    push eax
    mov dx, 0xCF8
    mov eax, ebx
    out dx, eax
    mov dx, 0xCFC
    pop eax
    out dx, eax
    ret

/* The words at DS:SI with "ok" if ZF, else "FAILED" */
verdict:
    pushf
    call puts
    popf
    mov si, offset ok
    je puts
    inc dword ptr es:[FAILURES]
    mov si, offset bad
    jmp puts

.include "firmware.inc"
no_vectors:
    .word 0
    .long 0

hello:      .asciz "rom: started\n"
same:       .asciz "ROM below 1 MiB and below 4 GiB"
unplaced:   .asciz "base registers unplaced"
edges:      .asciz "all lines edge-triggered"
smm:        .asciz "power management 5Bh: "
vga_rom:    .asciz "VGA ROM begins "
no_vga_rom: .asciz "VGA ROM: none\n"
read_only:  .asciz "ROM keeps its bytes"
write_only: .asciz "PAM 2: ROM is read"
shadowed:   .asciz "PAM 1: RAM is read, writes are lost"
writable:   .asciz "PAM 3: RAM"
behind:     .asciz "PAM 2: RAM is written\n"
not_behind: .asciz "PAM 2: nothing is written\n"
back:       .asciz "PAM 0: ROM again"
ok:         .asciz ": ok\n"
bad:        .asciz ": FAILED\n"
closed:     .asciz "PAM is closed\n"
open:       .asciz "PAM is open\n"
by:         .asciz "rom: reset by "
keyboard_name: .asciz "64h\n"
cf9_name:   .asciz "CF9h\n"
fast_name:  .asciz "92h\n"
fault_name: .asciz "triple fault\n"
passed:     .asciz "rom: passed\n"
failed:     .asciz "rom: failed\n"
