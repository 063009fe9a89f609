/* What POST and the boot menu put on the screen, through INT 10h. */
.include "defs.inc"
.code16
.section .text16, "ax"

/* The string at CS:SI, to the screen and to the debug console. */
.globl print
print:
    push ax
1:  lodsb cs:[si]
    test al, al
    jz 2f
    call print_char
    jmp 1b
2:  pop ax
    ret

.globl print_char
print_char:                         /* AL; a line feed brings its carriage return */
    push ax
    push bx
    push dx
    cmp al, 10
    jne 1f
    mov al, 13
    call print_char
    mov al, 10
1:  push ax
    mov dx, DEBUG_PORT
    in al, dx
    cmp al, 0xE9
    pop ax
    jne 2f
    out dx, al
2:  mov ah, 0x0E
    mov bx, 7
    int 0x10
    pop dx
    pop bx
    pop ax
    ret

/* EAX in decimal. */
.globl print_number
print_number:
    pushad
    mov ecx, 10
    xor bx, bx
1:  xor edx, edx
    div ecx
    push dx
    inc bx
    test eax, eax
    jnz 1b
2:  pop ax
    add al, '0'
    call print_char
    dec bx
    jnz 2b
    popad
    ret

/* CX characters at ES:DI, those that do not show as blanks; trailing blanks are left out. */
.globl print_field
print_field:
    pusha
1:  jcxz 9f
    mov bx, cx
    cmp byte ptr es:[di + bx - 1], ' '
    ja 2f
    dec cx
    jmp 1b
2:  mov al, es:[di]
    inc di
    cmp al, ' '
    jae 3f
    mov al, ' '
3:  call print_char
    loop 2b
9:  popa
    ret

.globl banner
banner:
    mov si, offset title
    call print
    mov eax, cs:[ram_low]
    shr eax, 20
    mov ebx, cs:[ram_high]
    shr ebx, 4
    add eax, ebx
    call print_number
    mov si, offset title_memory
    call print
    ret

/* A line for each drive: number, model, size. */
.globl show_drives
show_drives:
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    xor bx, bx
1:  cmp bl, fs:[EBDA_FD_COUNT]
    jae 2f
    mov si, offset text_diskette
    call print
    mov al, 'A'
    add al, bl
    call print_char
    mov al, 10
    call print_char
    inc bx
    jmp 1b
2:  xor bx, bx
3:  mov al, fs:[EBDA_HD_MAP + bx]
    cmp al, 0xFF
    je 5f
    mov si, offset text_disk
    call print_drive
    call drive_entry
    mov eax, fs:[si + D_TOTAL]
    mov edx, fs:[si + D_TOTAL + 4]
    shrd eax, edx, 11               /* MiB */
    mov si, offset text_comma
    call print
    call print_number
    mov si, offset text_mib
    call print
5:  inc bx
    cmp bx, 4
    jb 3b
    xor bx, bx
6:  mov al, fs:[EBDA_CD_MAP + bx]
    cmp al, 0xFF
    je 7f
    mov si, offset text_cd
    call print_drive
    mov al, 10
    call print_char
7:  inc bx
    cmp bx, 4
    jb 6b
    ret

/* AL: number of a drive's entry. Its address in SI. */
.globl drive_entry
drive_entry:
    movzx si, al
    shl si, 5
    add si, EBDA_DRIVES
    ret

/* Text SI, number BL, then the model that IDENTIFY gave, kept at 0:8000h + 64 * entry AL. */
print_drive:
    push ax
    call print
    mov al, bl
    add al, '0'
    call print_char
    mov si, offset text_colon
    call print
    pop ax
    push ax
    movzx di, al
    shl di, 6
    add di, 0x8000
    xor cx, cx
    mov es, cx
    mov cx, 40
    call print_field
    pop ax
    ret

.section .rodata16, "a"
title:         .asciz "Quintet BIOS\nMemory: "
title_memory:  .asciz " MiB\n"
text_diskette: .asciz "Diskette "
text_disk:     .asciz "Disk "
text_cd:       .asciz "CD-ROM "
text_colon:    .asciz ": "
text_comma:    .asciz ", "
text_mib:      .asciz " MiB\n"
