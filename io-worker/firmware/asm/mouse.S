/* The PS/2 mouse: INT 15h AH=C2h and the interrupt 74h behind it (PS/2 BIOS Interface Technical Reference). */
.include "defs.inc"
.code16
.section .text16, "ax"
/* Status of C2h */
.set BAD_FUNCTION, 1
.set BAD_INPUT, 2
.set INTERFACE_ERROR, 3
.set RESEND, 4
.set NO_HANDLER, 5

.globl pointing_device
pointing_device:
    movzx bx, byte ptr [bp + F_AL]
    mov ah, BAD_FUNCTION
    cmp bl, 8
    jae fail15
    shl bx, 1
    cli
    call keyboard_off
    call cs:[functions_c2 + bx]
    pushf
    push ax
    mov al, 0xAE
    call kbc_command
    pop ax
    popf
    jc fail15
    jmp good15

.section .rodata16, "a"
functions_c2:
    .word mouse_enable, mouse_reset, mouse_rate, mouse_resolution, mouse_type, mouse_initialise, mouse_extended, mouse_handler
rates:
    .byte 10, 20, 40, 60, 80, 100, 200

.section .text16, "ax"
keyboard_off:
    push ax
    mov al, 0xAD
    call kbc_command
1:  in al, KBC_STATUS               /* what the keyboard sent before stays for its interrupt */
    test al, 2
    jnz 1b
    pop ax
    ret

/* AL to the mouse, and its answer: carry and AH when it is not FAh. */
mouse_send:
    push cx
    mov cl, al
    mov al, 0xD4
    call kbc_command
    call kbc_wait_in
    mov al, cl
    out KBC_DATA, al
    call mouse_read
    jc 8f
    cmp al, 0xFA
    je 9f
    mov ah, RESEND
    stc
    jmp 9f
8:  mov ah, INTERFACE_ERROR
    stc
9:  pop cx
    ret

/* A byte of the mouse in AL; bytes of the keyboard are dropped. */
mouse_read:
    push cx
    mov cx, 16
1:  mov ah, 4
    call kbc_read
    jc 2f
    clc
2:  pop cx
    ret

/* The controller's command byte: bits of AH set, bits of AL kept. */
command_byte:
    push ax
    mov al, 0x20
    call kbc_command
    mov ah, 4
    call kbc_read
    mov cl, al
    pop ax
    jc 1f
    and cl, al
    or cl, ah
    mov al, 0x60
    call kbc_command
    call kbc_wait_in
    mov al, cl
    out KBC_DATA, al
    call kbc_wait_in
    clc
    ret
1:  mov ah, INTERFACE_ERROR
    ret

mouse_enable:                       /* 00h: BH 0 off, 1 on */
    mov bh, [bp + F_BH]
    mov ah, BAD_INPUT
    cmp bh, 1
    ja 9f
    jb 1f
    test byte ptr fs:[EBDA_MOUSE_FLAGS2], 0x80
    mov ah, NO_HANDLER
    jz 9f
    and byte ptr fs:[EBDA_MOUSE_FLAGS1], 0xF8
    mov al, 0xF4
    call interface_on
    jc 8f
    mov al, 0xF4
    call mouse_send
    jc 8f
    mov ax, 0x02DF                  /* interrupt 12, the port open */
    jmp command_byte
1:  mov al, 0xF5
    call interface_on
    mov al, 0xF5
    call mouse_send
    jc 8f
    mov ax, 0x20FD
    jmp command_byte
9:  stc
8:  ret

/* The port open but without its interrupt, so that answers can be waited for. */
interface_on:
    mov ax, 0x00DD
    jmp command_byte

mouse_reset:                        /* 01h: BH the ID, BL AAh */
    call interface_on
    jc 8b
    mov al, 0xFF
    call mouse_send
    jc 8b
    call mouse_read
    mov [bp + F_BL], al
    call mouse_read
    mov [bp + F_BH], al
    jmp restore

/* As it was before interface_on: with the interrupt if a handler is at work. */
restore:
    test byte ptr fs:[EBDA_MOUSE_FLAGS1], 0x40
    jz 1f
    mov ax, 0x02DF
    call command_byte
1:  clc
    ret

mouse_rate:                         /* 02h: BH 0 to 6 */
    movzx bx, byte ptr [bp + F_BH]
    mov ah, BAD_INPUT
    cmp bl, 7
    jae 9b
    mov cl, cs:[rates + bx]
    mov al, 0xF3
    jmp with_argument
mouse_resolution:                   /* 03h: BH 0 to 3 */
    mov cl, [bp + F_BH]
    mov ah, BAD_INPUT
    cmp cl, 4
    jae 9b
    mov al, 0xE8
with_argument:                      /* command AL, argument CL */
    push ax
    push cx
    call interface_on
    pop cx
    pop ax
    call mouse_send
    jc 8b
    mov al, cl
    call mouse_send
    jc 8b
    jmp restore
mouse_type:                         /* 04h: BH the ID */
    call interface_on
    jc 8b
    mov al, 0xF2
    call mouse_send
    jc 8b
    call mouse_read
    mov [bp + F_BH], al
    jmp restore
mouse_initialise:                   /* 05h: BH bytes of a packet */
    mov bh, [bp + F_BH]
    mov ah, BAD_INPUT
    dec bh
    cmp bh, 8
    jae 9b
    and byte ptr fs:[EBDA_MOUSE_FLAGS2], 0xF8
    or fs:[EBDA_MOUSE_FLAGS2], bh
    and byte ptr fs:[EBDA_MOUSE_FLAGS1], 0xF8
    mov bx, [bp + F_EBX]
    call mouse_reset
    ret
mouse_extended:                     /* 06h: BH 0 status, 1 and 2 scaling */
    mov bh, [bp + F_BH]
    mov ah, BAD_INPUT
    cmp bh, 2
    ja 9b
    call interface_on
    jc 8b
    cmp bh, 1
    mov al, 0xE6
    je 1f
    mov al, 0xE7
    ja 1f
    mov al, 0xE9
    call mouse_send
    jc 8b
    call mouse_read
    mov [bp + F_BL], al
    call mouse_read
    mov [bp + F_CL], al
    call mouse_read
    mov [bp + F_DL], al
    jmp restore
1:  call mouse_send
    jc 8b
    jmp restore
mouse_handler:                      /* 07h: ES:BX, 0:0 for none */
    mov ax, [bp + F_EBX]
    mov fs:[EBDA_MOUSE_HANDLER], ax
    mov bx, [bp + F_ES]
    mov fs:[EBDA_MOUSE_HANDLER + 2], bx
    and byte ptr fs:[EBDA_MOUSE_FLAGS2], 0x7F
    or ax, bx
    jz 1f
    or byte ptr fs:[EBDA_MOUSE_FLAGS2], 0x80
    clc
1:  ret

/* A byte of a packet; with the last of them the handler is called with status, X, Y and zero on the stack. */
.globl int74
int74:
    pushad
    push ds
    push es
    push fs
    cld
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    in al, KBC_STATUS
    and al, 0x21
    cmp al, 0x21
    jne 9f
    in al, KBC_DATA
    movzx bx, byte ptr fs:[EBDA_MOUSE_FLAGS1]
    mov cl, bl
    and bx, 7
    mov fs:[EBDA_MOUSE_PACKET + bx], al
    inc bx
    mov ch, fs:[EBDA_MOUSE_FLAGS2]
    and ch, 7
    cmp bl, ch
    jbe 1f
    xor bl, bl
1:  and cl, 0xF8
    or cl, bl
    mov fs:[EBDA_MOUSE_FLAGS1], cl
    test bl, bl
    jnz 9f
    test byte ptr fs:[EBDA_MOUSE_FLAGS2], 0x80
    jz 9f
    movzx ax, byte ptr fs:[EBDA_MOUSE_PACKET]
    push ax
    mov al, fs:[EBDA_MOUSE_PACKET + 1]
    push ax
    mov al, fs:[EBDA_MOUSE_PACKET + 2]
    push ax
    push 0
    sti
    lcall fs:[EBDA_MOUSE_HANDLER]
    cli
    add sp, 8
9:  mov al, 0x20
    out PIC2, al
    out PIC1, al
    pop fs
    pop es
    pop ds
    popad
    iret
