/* Diskettes: INT 13h below 80h and interrupt 0Eh. */
.include "defs.inc"
.code16
.section .text16, "ax"
.globl real_diskette, int0e, diskettes_find
diskettes_find:
    ret
real_diskette:
    mov ah, [bp + F_AH]
    cmp ah, 0x08
    je 1f
    cmp ah, 0x15
    je 2f
    cmp ah, 1
    je 3f
    jmp bad_function
1:  xor ax, ax
    mov [bp + F_EAX], ax
    mov [bp + F_EBX], ax
    mov [bp + F_ECX], ax
    mov [bp + F_EDX], ax
    mov [bp + F_EDI], ax
    mov [bp + F_ES], ax
    CLEAR_CARRY
    LEAVE
2:  mov byte ptr [bp + F_AH], 0
    CLEAR_CARRY
    LEAVE
3:  mov al, ds:[BDA_FD_STATUS]
    mov [bp + F_AH], al
    jmp good13
int0e:
    push ax
    push ds
    push 0x40
    pop ds
    or byte ptr ds:[BDA_FD_RECALIBRATED], 0x80
    mov al, 0x20
    out PIC1, al
    pop ds
    pop ax
    iret
