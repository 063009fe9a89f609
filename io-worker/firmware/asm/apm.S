/* INT 15h AH=53h: APM 1.2, and its entries for protected mode. Registers alone, so that the same text serves 16 and 32 bits: there
 * is no state to keep, because nothing but switching the machine off does anything. */
.include "defs.inc"
.section .text16, "ax"
.set APM_NOT_ENGAGED, 0x03
.set APM_BAD_DEVICE, 0x09
.set APM_BAD_VALUE, 0x0A
.set APM_UNSUPPORTED, 0x0C
.set APM_NO_EVENT, 0x80
.set SLP_OFF, 0x2000            /* PM1 control: SLP_EN with type 0 */
.set DEVICES_ALL, 1

.macro APM_CORE name
\name:
    cmp al, 0x04                /* disconnect, */
    je 90f
    cmp al, 0x05
    je 50f
    cmp al, 0x06                /* busy */
    je 90f
    cmp al, 0x07
    je 70f
    cmp al, 0x0A
    je 100f
    cmp al, 0x0B
    je 110f
    cmp al, 0x0C
    je 120f
    cmp al, 0x0E
    je 140f
    cmp al, 0x08                /* enable, defaults, device, engage: as asked */
    je 90f
    cmp al, 0x09
    je 90f
    cmp al, 0x0D
    je 90f
    cmp al, 0x0F
    je 90f
    mov ah, APM_UNSUPPORTED
80: stc
    ret
90: mov ah, 0
    clc
    ret
50: sti                         /* idle */
    hlt
    jmp 90b
70: cmp bx, DEVICES_ALL         /* state CX of devices BX */
    mov ah, APM_BAD_DEVICE
    jne 80b
    cmp cx, 3
    mov ah, APM_BAD_VALUE
    ja 80b
    jb 90b
    mov dx, PM_BASE + 4
    mov ax, SLP_OFF
    out dx, ax
71: hlt
    jmp 71b
100:
    cmp bx, DEVICES_ALL         /* mains, no battery */
    mov ah, APM_BAD_DEVICE
    jne 80b
    mov bx, 0x01FF
    mov cx, 0x80FF
    mov dx, 0xFFFF
    jmp 90b
110:
    mov ah, APM_NO_EVENT
    jmp 80b
120:
    mov cx, 0                   /* on */
    jmp 90b
140:
    cmp cx, 0x0102              /* version both sides speak */
    mov ax, cx
    jbe 141f
    mov ax, 0x0102
141:
    clc
    ret
.endm

.code16
APM_CORE apm_core16
apm_entry16:
    call apm_core16
    retf
.code32
APM_CORE apm_core32
apm_entry32:
    call apm_core32
    retf
.code16

.globl apm
apm:
    mov al, [bp + F_AL]
    mov bx, [bp + F_EBX]
    cmp al, 3
    ja 4f
    test bx, bx                 /* the BIOS itself is device 0 */
    mov ah, APM_BAD_DEVICE
    jnz fail15
    cmp al, 1
    jb 1f
    je good15
    mov word ptr [bp + F_EAX], 0xF000
    cmp al, 3
    je 3f
    mov word ptr [bp + F_EBX], offset apm_entry16
    mov word ptr [bp + F_ECX], 0xF000
    mov word ptr [bp + F_ESI], 0xFFFF
2:  mov word ptr [bp + F_EDI], 0xFFFF
    CLEAR_CARRY
    LEAVE
3:  mov dword ptr [bp + F_EBX], offset apm_entry32
    mov word ptr [bp + F_ECX], 0xF000
    mov word ptr [bp + F_EDX], 0xF000
    mov dword ptr [bp + F_ESI], 0xFFFFFFFF
    jmp 2b
1:  mov word ptr [bp + F_EAX], 0x0102
    mov word ptr [bp + F_EBX], 0x504D
    mov word ptr [bp + F_ECX], 3    /* both forms of protected mode */
    CLEAR_CARRY
    LEAVE
4:  mov cx, [bp + F_ECX]
    mov dx, [bp + F_EDX]
    mov ax, [bp + F_EAX]
    call apm_core16
    mov [bp + F_EAX], ax
    mov [bp + F_EBX], bx
    mov [bp + F_ECX], cx
    mov [bp + F_EDX], dx
    jc 5f
    CLEAR_CARRY
    LEAVE
5:  SET_CARRY
    LEAVE
