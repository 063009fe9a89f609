/* From the reset vector to protected mode and back: why the processor was reset, and POST's two halves.
 *
 * The first half (post32) runs in flat 32-bit mode, because it moves memory about and writes tables above 1 MiB. The second
 * (post16) is the rest of POST in real mode. */
.include "defs.inc"
.code16
.section .text16, "ax"

.globl post
post:
    cli
    cld
    mov al, 0x8F                    /* shutdown byte: what the reset was for */
    out CMOS, al
    in al, CMOS + 1
    mov bl, al
    mov al, 0x8F
    out CMOS, al
    xor al, al
    out CMOS + 1, al
    test bl, bl
    jz cold
    call unlock_shadow              /* RAM has kept everything; the bridge has not */
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    mov ds, ax
    cmp bl, 5
    je acknowledge_and_return
    cmp bl, 9
    je block_move_return
    cmp bl, 0x0A
    je return_to_caller
    cmp bl, 4
    jne cold
    ljmp 0xF000, offset boot_strap

acknowledge_and_return:
    mov al, 0x20
    out PIC2, al
    out PIC1, al
    in al, KBC_DATA
return_to_caller:
    ljmp ds:[0x400 + BDA_RESET_VECTOR]

block_move_return:                  /* as a 286 comes back from INT 15h AH=87h */
    lss sp, ds:[0x400 + BDA_RESET_VECTOR]
    pop ds
    pop es
    popa
    iret

/* F0000h-FFFFFh reads RAM, C0000h-EFFFFh reads and writes it. */
unlock_shadow:
    mov eax, 0x80000058
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFD
    mov al, 0x10
    out dx, al
    inc dx
    mov al, 0x33
    out dx, al
    inc dx
    out dx, al
    mov eax, 0x8000005C
    mov dx, 0xCF8
    out dx, eax
    mov eax, 0x33333333
    mov dx, 0xCFC
    out dx, eax
    ret

cold:
    in al, 0x92                     /* A20 on, no reset */
    or al, 2
    and al, 0xFE
    out 0x92, al
    data32 lgdt cs:[gdt_pointer]
    mov eax, cr0
    and eax, 0x1FFFFFFF             /* caches on */
    or al, 1
    mov cr0, eax
    data32 ljmp 0x08, offset post32 + 0xFFF00000

.globl return_to_real
return_to_real:                     /* in 16-bit protected mode, selector 18h */
    mov ax, 0x20
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xFE
    mov cr0, eax
    ljmp 0xF000, offset 1f
1:  data32 lidt cs:[real_idt]
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    mov ds, ax
    mov es, ax
    jmp post16

/* Writes to F0000h-FFFFFh go nowhere from here on. */
.globl lock_shadow
lock_shadow:
    mov eax, 0x80000058
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFD
    mov al, 0x10
    out dx, al
    ret

.section .rodata16, "a"
.balign 8
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF        /* 08h: code, flat */
    .quad 0x00CF93000000FFFF        /* 10h: data, flat */
    .quad 0x00009B0F0000FFFF        /* 18h: code of 16 bits at F0000h */
    .quad 0x000093000000FFFF        /* 20h: data as in real mode */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt + 0xF0000
real_idt:
    .word 0x3FF
    .long 0
