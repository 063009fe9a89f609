/* INT 14h and 17h: serial and parallel ports. */
.include "defs.inc"
.code16
.section .text16, "ax"

.globl int14, int17, int10
int14:
    ENTER
    sti
    mov bx, [bp + F_EDX]
    cmp bx, 4
    jae 9f
    movzx cx, byte ptr ds:[BDA_COM_TIMEOUT + bx]
    shl bx, 1
    mov dx, ds:[BDA_COM + bx]
    test dx, dx
    jz 9f
    mov al, [bp + F_AH]
    cmp al, 5
    ja 9f
    movzx bx, al
    shl bx, 1
    call cs:[functions14 + bx]
9:  LEAVE

.section .rodata16, "a"
functions14:
    .word serial_set, serial_send, serial_receive, serial_status, serial_set_long, serial_modem
long_divisors:
    .word 1047, 768, 384, 192, 96, 48, 24, 12, 6, 3, 2, 1
.section .text16, "ax"

/* The data port in DX: line status in the caller's AH, modem status in AL. */
serial_status:
    push dx
    add dx, 5
    in al, dx
    mov [bp + F_AH], al
    inc dx
    in al, dx
    mov [bp + F_AL], al
    pop dx
    ret

serial_set:                         /* 00h: AL rate, parity, stop bits, length */
    mov al, [bp + F_AL]
    movzx bx, al
    shr bl, 5
    shl bx, 1
    mov cx, cs:[baud_divisors + bx]
    and al, 0x1F
serial_apply:                       /* divisor CX, line control AL */
    mov ah, al
    add dx, 3
    mov al, 0x80
    out dx, al
    sub dx, 3
    mov al, cl
    out dx, al
    inc dx
    mov al, ch
    out dx, al
    add dx, 2
    mov al, ah
    out dx, al
    sub dx, 2
    xor al, al
    out dx, al
    dec dx
    jmp serial_status

serial_set_long:                    /* 04h: AL break, BH parity, BL stop, CH length, CL rate */
    cmp byte ptr [bp + F_CL], 11
    ja 9f
    movzx bx, byte ptr [bp + F_CL]
    shl bx, 1
    mov cx, cs:[long_divisors + bx]
    mov al, [bp + F_CH]
    and al, 3
    mov ah, [bp + F_BL]
    and ah, 1
    shl ah, 2
    or al, ah
    movzx bx, byte ptr [bp + F_BH]
    cmp bl, 4
    ja 9f
    or al, cs:[parities + bx]
    mov ah, [bp + F_AL]
    and ah, 1
    shl ah, 6
    or al, ah
    jmp serial_apply
9:  ret
.section .rodata16, "a"
parities: .byte 0, 0x08, 0x18, 0x28, 0x38
.section .text16, "ax"

serial_modem:                       /* 05h: modem control, AL 0 read, 1 write, in BL */
    add dx, 4
    cmp byte ptr [bp + F_AL], 1
    ja 9f
    je 1f
    in al, dx
    mov [bp + F_BL], al
    jmp 2f
1:  mov al, [bp + F_BL]
    out dx, al
2:  sub dx, 4
    jmp serial_status
9:  ret

/* Waits for the bits AH of the line status, about CX seconds: status in AL, carry when they do not come. */
serial_wait:
    push ecx
    push edx
    movzx ecx, cx
    imul ecx, ecx, PM_TIMER_MS * 1000
    mov bx, dx
    add bx, 5
    mov edx, ecx
    call timer_start
1:  push dx
    mov dx, bx
    in al, dx
    pop dx
    test al, ah
    jnz 2f
    call timer_passed
    jnc 1b
    jmp 3f
2:  clc
3:  pop edx
    pop ecx
    ret

serial_send:                        /* 01h */
    mov al, 3                       /* DTR, RTS */
    add dx, 4
    out dx, al
    sub dx, 4
    mov ah, 0x20
    call serial_wait
    jc late
    mov al, [bp + F_AL]
    out dx, al
    add dx, 5
    in al, dx
    mov [bp + F_AH], al
    ret
late:
    or al, 0x80
    mov [bp + F_AH], al
    ret

serial_receive:                     /* 02h */
    mov al, 1
    add dx, 4
    out dx, al
    sub dx, 4
    mov ah, 1
    call serial_wait
    jc late
    and al, 0x1E
    mov [bp + F_AH], al
    in al, dx
    mov [bp + F_AL], al
    ret

int17:
    ENTER
    sti
    mov bx, [bp + F_EDX]
    cmp bx, 3
    jae 9f
    movzx cx, byte ptr ds:[BDA_LPT_TIMEOUT + bx]
    shl bx, 1
    mov dx, ds:[BDA_LPT + bx]
    test dx, dx
    jz 9f
    mov al, [bp + F_AH]
    cmp al, 1
    jb 1f
    je 3f
    cmp al, 2
    je 4f
9:  LEAVE
1:  mov al, [bp + F_AL]             /* 00h: a character */
    out dx, al
    inc dx
    mov bx, cx
    inc bx
2:  xor cx, cx
21: in al, dx
    test al, 0x80                   /* not busy */
    jnz 22f
    loop 21b
    dec bx
    jnz 2b
    mov ah, al
    or ah, 1
    and ah, 0xF9
    xor ah, 0x48
    mov [bp + F_AH], ah
    LEAVE
22: inc dx
    mov al, 0x0D
    out dx, al
    mov al, 0x0C
    out dx, al
    sub dx, 2
    jmp 4f
3:  add dx, 2                       /* 01h: initialise */
    mov al, 8
    out dx, al
    mov eax, 1
    call wait_ms
    mov al, 0x0C
    out dx, al
    sub dx, 2
4:  inc dx                          /* 02h: status */
    in al, dx
    and al, 0xF8
    xor al, 0x48
    mov [bp + F_AH], al
    LEAVE

/* F000:F065, where INT 10h was before there were VGA BIOSes: asks the one there is. */
int10:
    push ds
    push ax
    xor ax, ax
    mov ds, ax
    cmp word ptr ds:[0x10 * 4 + 2], 0xF000
    pop ax
    pop ds
    je 1f
    int 0x10
1:  iret
