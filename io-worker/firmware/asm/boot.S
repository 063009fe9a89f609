/* INT 19h and 18h: what is booted, in which order, and the menu behind F12. */
.include "defs.inc"
.code16
.section .text16, "ax"
.set DISKETTE, 1
.set DISK, 2
.set CD, 3                      /* above the kind, in bits 7 to 4: its number */
.set F12, 0x8600

/* The order: what fw_cfg names, then what the CMOS says as QEMU writes it, nibbles of 3Dh, then the upper one of 38h. */
.globl boot_order
boot_order:
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    mov di, EBDA_BOOT_ORDER
    mov cx, 4
    call boot_order_named
    CMOS_READ 0x3D
    mov bl, al
    CMOS_READ 0x38
    shr al, 4
    mov bh, al
    test bx, bx
    jnz 1f
    mov bx, 0x132               /* disk, CD, diskette */
1:  mov cx, 3
2:  mov al, bl
    and al, 15
    shr bx, 4
    cmp al, CD
    ja 3f
    test al, al
    jz 3f
    mov fs:[di], al
    inc di
3:  loop 2b
    mov byte ptr fs:[di], 0
    ret

/* F12 while POST ran, or within half a second from here, asks what to boot. */
.globl boot_menu
boot_menu:
    mov si, offset press
    call print
    mov edx, PM_TIMER_MS * 500
    call timer_start
1:  mov ah, 0x11
    int 0x16
    jz 2f
    mov ah, 0x10
    int 0x16
    cmp ax, F12
    je 3f
2:  call timer_passed
    jnc 1b
    mov al, 10
    jmp print_char
3:  mov si, offset choose
    call print
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    xor bp, bp                  /* choices so far */
    mov ax, DISKETTE
    movzx cx, byte ptr fs:[EBDA_FD_COUNT]
    mov si, offset text_menu_diskette
    call choices
    mov ax, DISK
    movzx cx, byte ptr ds:[BDA_HD_COUNT]
    mov si, offset text_menu_disk
    call choices
    mov ax, CD
    movzx cx, byte ptr fs:[EBDA_CD_COUNT]
    mov si, offset text_menu_cd
    call choices
4:  xor ah, ah
    int 0x16
    cmp al, 27
    je 9f
    sub al, '1'
    jb 4b
    movzx bx, al
    cmp bx, bp
    jae 4b
    mov al, fs:[EBDA_BUFFER + bx]   /* that one first, then the order as it was */
    mov cx, 6
    mov bx, EBDA_BOOT_ORDER + 5
5:  mov ah, fs:[bx]
    mov fs:[bx + 1], ah
    dec bx
    loop 5b
    mov fs:[EBDA_BOOT_ORDER], al
9:  ret

/* CX lines of kind AL and text SI. */
choices:
    jcxz 9f
1:  push si
    mov bx, bp
    mov fs:[EBDA_BUFFER + bx], al
    inc bp
    push ax
    mov ax, bp
    add al, '0'
    call print_char
    mov al, ' '
    call print_char
    call print
    pop ax
    push ax
    shr al, 4
    add al, '0'
    call print_char
    mov al, 10
    call print_char
    pop ax
    pop si
    add al, 0x10
    loop 1b
9:  ret

.globl int19, boot_strap
int19:
boot_strap:
    cli
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    sti
    cld
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    mov byte ptr fs:[EBDA_BOOT_NEXT], 0
next_device:
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    movzx bx, byte ptr fs:[EBDA_BOOT_NEXT]
    mov al, fs:[EBDA_BOOT_ORDER + bx]
    test al, al
    jz nothing
    inc byte ptr fs:[EBDA_BOOT_NEXT]
    mov bl, al
    shr bl, 4
    and al, 15
    mov si, offset text_booting
    call print
    cmp al, DISK
    je boot_disk
    cmp al, CD
    jne boot_diskette
    mov si, offset text_booting_cd
    call print
    cmp bl, fs:[EBDA_CD_COUNT]
    jae absent
    jmp boot_cd

absent:
    mov si, offset text_absent
.globl boot_failed
boot_failed:                    /* SI says why */
    push si
    mov si, offset text_colon_2
    call print
    pop si
    call print
    mov al, 10
    call print_char
    cli
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    sti
    jmp next_device

boot_diskette:
    mov si, offset text_booting_diskette
    call print
    cmp bl, fs:[EBDA_FD_COUNT]
    jae absent
    mov dl, bl
    jmp 1f
boot_disk:
    mov si, offset text_booting_disk
    call print
    cmp bl, ds:[BDA_HD_COUNT]
    jae absent
    mov dl, bl
    add dl, 0x80
1:  xor ax, ax
    mov es, ax
    mov bp, 3
2:  mov ax, 0x0201
    mov bx, 0x7C00
    mov cx, 1
    mov dh, 0
    push dx
    int 0x13
    pop dx
    jnc 3f
    xor ah, ah
    int 0x13
    dec bp
    jnz 2b
    mov si, offset unreadable
    jmp boot_failed
3:  cmp word ptr es:[0x7DFE], 0xAA55
    je 4f
    mov si, offset not_bootable
    cmp dl, 0x80
    jae boot_failed
4:  xor ax, ax
    mov cx, 0x7C00

/* To AX:CX with drive DL. */
.globl boot_jump
boot_jump:
    push ax
    mov al, 10
    call print_char
    pop ax
    mov bx, 0                   /* a frame as if interrupted there */
    mov ds, bx
    mov es, bx
    mov fs, bx
    mov gs, bx
    push 0x0202
    push ax
    push cx
    movzx edx, dl
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor esi, esi
    xor edi, edi
    xor ebp, ebp
    mov ax, 0xAA55
    iret

.globl int18
int18:                          /* this one did not boot: the next */
    cli
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    sti
    cld
    jmp next_device

nothing:
    mov si, offset text_nothing
    call print
1:  hlt
    jmp 1b

.section .rodata16, "a"
press:                 .asciz "F12: boot menu\n"
choose:                .asciz "\nBoot from (Esc: as usual)\n"
text_menu_diskette:    .asciz "diskette "
text_menu_disk:        .asciz "disk "
text_menu_cd:          .asciz "CD-ROM "
text_booting:          .asciz "Booting from "
text_booting_cd:       .asciz "CD-ROM"
text_booting_diskette: .asciz "diskette"
text_booting_disk:     .asciz "disk"
text_colon_2:          .asciz ": "
text_absent:           .asciz "not there"
text_nothing:          .asciz "Nothing to boot from.\n"
