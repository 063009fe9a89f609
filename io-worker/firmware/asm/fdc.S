/* The 82077 diskette controller with ISA DMA: commands by polling its status register, their end by interrupt 6. */
.include "defs.inc"
.code16
.section .text16, "ax"
.set DOR, 0x3F2
.set MSR, 0x3F4
.set DATA_RATE, 0x3F7
.set E_ADDRESS_MARK, 0x02
.set E_DMA_OVERRUN, 0x08
.globl fd_out, fd_result, controller_reset, motor_on, fd_seek, set_rate, fd_command, dma_start, fd_end

/* AL to the controller; carry when it does not take it. */
fd_out:
    push cx
    push dx
    push ax
    xor cx, cx
    mov dx, MSR
1:  in al, dx
    and al, 0xC0
    cmp al, 0x80
    je 2f
    loop 1b
    pop ax
    stc
    jmp 3f
2:  pop ax
    inc dx
    out dx, al
    clc
3:  pop dx
    pop cx
    ret

/* CX bytes of result to BDA_FD_RESULT; carry when they do not come. */
fd_result:
    push di
    mov di, BDA_FD_RESULT
1:  push cx
    xor cx, cx
    mov dx, MSR
2:  in al, dx
    and al, 0xC0
    cmp al, 0xC0
    je 3f
    loop 2b
    pop cx
    stc
    pop di
    ret
3:  pop cx
    inc dx
    in al, dx
    mov [di], al
    inc di
    loop 1b
    clc
    pop di
    ret

/* Waits up to two seconds for the interrupt; carry when it does not come. */
fd_wait:
    push ecx
    push edx
    mov edx, PM_TIMER_MS * 2000
    call timer_start
    sti
1:  test byte ptr ds:[BDA_FD_RECALIBRATED], 0x80
    jnz 2f
    call timer_passed
    jnc 1b
    jmp 3f
2:  clc
3:  pushf
    and byte ptr ds:[BDA_FD_RECALIBRATED], 0x7F
    popf
    pop edx
    pop ecx
    ret

controller_reset:
    pusha
    and byte ptr ds:[BDA_FD_RECALIBRATED], 0x7F
    mov dx, DOR
    mov al, 0x08
    out dx, al
    mov eax, 1
    call wait_ms
    mov al, 0x0C
    out dx, al
    call fd_wait
    jc 2f
    mov bl, 4                       /* a status for each drive */
1:  mov al, 8
    call fd_out
    mov cx, 2
    call fd_result
    dec bl
    jnz 1b
    mov al, 3                       /* SPECIFY: step rate, head times, DMA */
    call fd_out
    mov al, 0xAF
    call fd_out
    mov al, 2
    call fd_out
2:  mov byte ptr ds:[BDA_FD_MOTOR], 0
    mov byte ptr ds:[BDA_FD_RECALIBRATED], 0
    popa
    ret

/* The motor of drive DL, and until INT 08h stops it. */
motor_on:
    push ax
    push cx
    push dx
    mov byte ptr ds:[BDA_FD_TIMEOUT], 0xFF
    mov cl, dl
    mov al, 0x10
    shl al, cl
    or al, 0x0C
    or al, cl
    mov dx, DOR
    out dx, al
    mov al, 1
    shl al, cl
    mov ah, ds:[BDA_FD_MOTOR]
    mov ds:[BDA_FD_MOTOR], al
    test ah, al
    jnz 1f
    push eax
    mov eax, 20                     /* a drive that is no metal turns at once */
    call wait_ms
    pop eax
1:  pop dx
    pop cx
    pop ax
    ret

/* Head to cylinder AL of drive DL, after a first time at cylinder 0. Carry and AH. */
fd_seek:
    push ax
    mov cl, dl
    mov ah, 1
    shl ah, cl
    test ds:[BDA_FD_RECALIBRATED], ah
    jnz 1f
    or ds:[BDA_FD_RECALIBRATED], ah
    mov al, 7
    call fd_out
    mov al, dl
    call fd_out
    call seek_end
1:  pop ax
    push ax
    movzx bx, dl
    mov [bx + BDA_FD_CYLINDER], al
    mov ah, al
    mov al, 15
    call fd_out
    mov al, dl
    call fd_out
    mov al, ah
    call fd_out
    call seek_end
    pop ax
    mov ah, E_SEEK
    ret
seek_end:
    call fd_wait
    jc 1f
    push dx
    mov al, 8
    call fd_out
    mov cx, 2
    call fd_result
    pop dx
    jc 1f
    test byte ptr ds:[BDA_FD_RESULT], 0xC0
    jz 1f
    stc
1:  ret

/* The data rate of format SI. */
set_rate:
    push ax
    push dx
    mov al, cs:[si + 2]
    mov ds:[BDA_FD_RATE], al
    mov dx, DATA_RATE
    out dx, al
    pop dx
    pop ax
    clc
    ret

/* Command BH on BL sectors from CH, DH, CL on in format SI, drive DL, memory ES:DI. Carry and AH. */
fd_command:
    push edi
    mov ah, 0x46                    /* the 8237's mode for channel 2: single, to memory 46h, from it 4Ah */
    cmp bh, 0x4A
    jne 1f
    mov ah, bh
1:  push cx
    movzx edi, di
    xor ecx, ecx
    mov cx, es
    shl ecx, 4
    add edi, ecx
    movzx cx, bl
    shl cx, 9
    dec cx
    call dma_start
    pop cx
    mov ah, E_BOUNDARY
    jc 9f
    mov al, 0xE6                    /* read, multiple tracks, MFM; write is C5h */
    cmp bh, 0x4A
    jne 2f
    mov al, 0xC5
2:  call fd_out
    jc 8f
    mov al, dh
    shl al, 2
    or al, dl
    call fd_out
    mov al, ch
    call fd_out
    mov al, dh
    call fd_out
    mov al, cl
    call fd_out
    mov al, 2
    call fd_out
    mov al, cs:[si + 1]
    call fd_out
    mov al, cs:[si + 3]
    call fd_out
    mov al, 0xFF
    call fd_out
    call fd_end
    jmp 9f
8:  mov ah, E_TIMEOUT
    stc
9:  pop edi
    ret

/* Channel 2 of the 8237: mode AH, CX bytes and one more at EDI. Carry when they lie in two pages of 64 KiB. */
dma_start:
    push edi
    mov al, 6                       /* masked */
    out 0x0A, al
    xor al, al
    out 0x0C, al
    mov al, ah
    out 0x0B, al
    mov ax, di
    out 0x04, al
    mov al, ah
    out 0x04, al
    mov ax, di
    shr edi, 16
    add ax, cx
    mov ax, di
    pop edi
    jc 1f
    out 0x81, al
    mov al, cl
    out 0x05, al
    mov al, ch
    out 0x05, al
    mov al, 2
    out 0x0A, al
    clc
1:  ret

/* The end of a command with seven bytes of result. Carry and AH. */
fd_end:
    call fd_wait
    jc 7f
    push cx
    push dx
    mov cx, 7
    call fd_result
    pop dx
    pop cx
    jc 8f
    mov ah, 0
    test byte ptr ds:[BDA_FD_RESULT], 0xC0
    jz 9f
    mov al, ds:[BDA_FD_RESULT + 1]
    mov ah, E_WRITE_PROTECTED
    test al, 2
    jnz 6f
    mov ah, E_NOT_FOUND
    test al, 0x84
    jnz 6f
    mov ah, E_BAD_CRC
    test al, 0x20
    jnz 6f
    mov ah, E_DMA_OVERRUN
    test al, 0x10
    jnz 6f
    mov ah, E_ADDRESS_MARK
    test al, 1
    jnz 6f
    mov ah, E_CONTROLLER
6:  stc
    jmp 9f
7:  call controller_reset
8:  mov ah, E_TIMEOUT
    stc
9:  ret
