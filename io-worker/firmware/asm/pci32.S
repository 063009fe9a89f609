/* PCI of bus 0: address windows, interrupt lines, and the functions of the board whose registers firmware sets.
 *
 * Windows are laid out as for a kernel that starts without firmware: memory from E0000000h, ports from C000h, the largest
 * first, so that every window is aligned to its size without a gap. */
.include "defs.inc"
.code32
.section .text32, "ax"
.set WINDOWS, 0x10000           /* scratch: address of the register, length, 1 for ports */

/* EAX = 80000000h + function + register: the doubleword in EAX. */
.globl pci_read
pci_read:
    push edx
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFC
    in eax, dx
    pop edx
    ret

/* ECX to the doubleword at EAX. */
.globl pci_write
pci_write:
    push edx
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFC
    mov eax, ecx
    out dx, eax
    pop edx
    ret

/* CL to the byte at EAX. */
pci_write_byte:
    push edx
    mov dl, al
    and edx, 3
    push edx
    and al, 0xFC
    mov dx, 0xCF8
    out dx, eax
    pop edx
    add dx, 0xCFC
    mov al, cl
    out dx, al
    pop edx
    ret

/* Calls EDI for every function of bus 0 with EBX = 80000000h + function, EDX = vendor and device. EDI may not change. */
pci_each:
    mov ebx, 0x80000000
1:  mov eax, ebx
    call pci_read
    cmp ax, 0xFFFF
    je 3f
    mov edx, eax
    push ebx
    push edi
    call edi
    pop edi
    pop ebx
    test ebx, 0x700             /* the other functions only of a device that says it has them */
    jnz 2f
    lea eax, [ebx + 0x0C]
    call pci_read
    test eax, 0x800000
    jz 4f
2:  add ebx, 0x100
    test ebx, 0x10000
    jz 1b
    ret
3:  test ebx, 0x700
    jnz 2b
4:  add ebx, 0x800
    test ebx, 0x10000
    jz 1b
    ret

.globl pci_set_up
pci_set_up:
    mov esi, WINDOWS
    mov edi, offset find_windows
    call pci_each
    mov dword ptr [esi], 0
    call assign
    mov edi, offset enable
    call pci_each
    mov dx, 0x4D0               /* edge or level: the lines that PIRQs go to */
    xor al, al
    out dx, al
    inc dx
    mov al, 0x0C
    out dx, al
    ret

find_windows:
    lea eax, [ebx + 4]
    call pci_read
    movzx ecx, ax
    and ecx, 0xFFFC
    lea eax, [ebx + 4]
    call pci_write
    lea eax, [ebx + 0x0C]
    call pci_read
    test eax, 0x7F0000
    jnz 9f                      /* a bridge: there is none on this board */
    lea edi, [ebx + 0x10]
1:  mov eax, edi
    mov ecx, 0xFFFFFFFF
    call pci_write
    mov eax, edi
    call pci_read
    test eax, eax
    jz 4f
    cmp eax, 0xFFFFFFFF
    je 4f
    mov [esi], edi
    xor ecx, ecx
    test al, 1
    jz 2f
    inc ecx
    or eax, 0xFFFF0000
    and eax, 0xFFFFFFFC
    jmp 3f
2:  mov edx, eax
    and eax, 0xFFFFFFF0
    and edx, 6
    cmp edx, 4
    jne 3f
    add edi, 4                  /* the upper half of a wide window stays zero */
    push eax
    mov eax, edi
    push ecx
    xor ecx, ecx
    call pci_write
    pop ecx
    pop eax
3:  neg eax
    mov [esi + 4], eax
    mov [esi + 8], ecx
    add esi, 12
4:  add edi, 4
    lea eax, [ebx + 0x28]
    cmp edi, eax
    jb 1b
9:  ret

assign:
    mov ebx, 0x80000000         /* length looked for */
    mov edi, 0xE0000000         /* next memory address */
    mov ebp, 0xC000             /* next port */
1:  mov esi, WINDOWS
2:  mov eax, [esi]
    test eax, eax
    jz 4f
    cmp [esi + 4], ebx
    jne 3f
    cmp dword ptr [esi + 8], 0
    jne 5f
    mov ecx, edi
    call pci_write
    add edi, ebx
    jmp 3f
5:  mov ecx, ebp
    call pci_write
    add ebp, ebx
3:  add esi, 12
    jmp 2b
4:  shr ebx, 1
    cmp ebx, 4
    jae 1b
    ret

/* Interrupt line, the registers of the board's own functions, decoding on. */
enable:
    lea eax, [ebx + 0x3C]
    call pci_read
    movzx ecx, ah               /* pin, 0 for none */
    jecxz 2f
    cmp cl, 4
    ja 2f
    mov eax, ebx                /* the slot turns the pins */
    shr eax, 11
    and eax, 0x1F
    lea ecx, [ecx + eax - 2]
    and ecx, 3
    mov cl, [pirq_lines + ecx]
    cmp edx, 0x71138086
    jne 1f
    mov cl, 9
1:  lea eax, [ebx + 0x3C]
    call pci_write_byte
2:  cmp edx, 0x70008086         /* PIIX3: where the PIRQs go */
    jne 3f
    lea eax, [ebx + 0x60]
    mov ecx, [pirq_lines]
    call pci_write
3:  cmp edx, 0x70108086         /* PIIX3 IDE: both channels at their ports */
    jne 4f
    lea eax, [ebx + 0x40]
    mov ecx, 0x80008000
    call pci_write
4:  cmp edx, 0x71138086         /* PIIX4: power management ports */
    jne 5f
    lea eax, [ebx + 0x40]
    mov ecx, PM_BASE + 1
    call pci_write
    lea eax, [ebx + 0x80]
    mov cl, 1
    call pci_write_byte
5:  lea eax, [ebx + 4]
    call pci_read
    movzx ecx, ax
    or ecx, 3
    lea eax, [ebx + 4]
    jmp pci_write

.section .rodata32, "a"
.globl pirq_lines
pirq_lines: .byte 10, 10, 11, 11
