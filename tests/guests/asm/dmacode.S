/* Code that a device overwrites, and addresses where nothing is.
 *
 * fw_cfg's DMA copies its signature, the four letters QEMU, over four instructions; as code they are PUSH ECX,
 * INC EBP, DEC EBP, PUSH EBP. Completion is polled for in RAM: no interrupt, no port, nothing that would make a
 * processor look up. From then on the new instructions must run. Verdict lines: "dmacode: code passed",
 * "dmacode: holes passed", and failed in place of passed; isa-debug-exit gets the number of failures. */
.include "pc.inc"
MULTIBOOT_HEADER
.include "text.inc"
.include "traps.inc"

.set ROUNDS, 2000
.set SELECT_AND_READ, 0x0A            /* key 0, the signature */
.set DMA_HIGH, 0x514
.set DMA_LOW, 0x518
.set LETTERS, 0x554D4551              /* "QEMU" */
.set OLD_CODE, 0x40404040             /* INC EAX four times */

.section .bss
.balign 4096
code_page: .skip 8192
.balign 16
request: .skip 16
failures: .skip 4

GUEST_START
    call traps_init
    UART_INIT
    call text_clear

    mov ebx, offset code_page + 0x100
    call rounds
    mov ebx, offset code_page + 0xFFE /* two instructions on either page */
    call rounds
    mov ebx, offset beside            /* the page that polls */
    call rounds
    cmp dword ptr [failures], 0
    jne 1f
    PRINT "dmacode: code passed\n"
    jmp 2f
1:  PRINT "dmacode: code failed\n"

2:  mov ebp, [failures]
    call holes
    cmp ebp, [failures]
    jne 3f
    PRINT "dmacode: holes passed\n"
    jmp 4f
3:  PRINT "dmacode: holes failed\n"
4:  mov eax, [failures]
    jmp leave_with

interrupt_hook:
    ret

/* Asks for the signature at EDX:EAX and waits in RAM; EAX is what the device leaves: 0, or 1 for an error. */
dma:
    push edx
    mov dword ptr [request + 4], 4 << 24
    bswap edx
    mov [request + 8], edx
    bswap eax
    mov [request + 12], eax
    mov eax, SELECT_AND_READ << 24
    mov [request], eax
    mov dx, DMA_HIGH
    xor eax, eax
    out dx, eax
    mov dx, DMA_LOW
    mov eax, offset request
    bswap eax
    out dx, eax
1:  mov eax, [request]
    test eax, 0xFEFFFFFF              /* anything but the error bit */
    jnz 1b
    bswap eax
    pop edx
    ret

beside: .skip 16

/* ROUNDS times: old code at EBX, run; new code by DMA, run. */
rounds:
    mov edi, ROUNDS
1:  mov dword ptr [ebx], OLD_CODE
    mov dword ptr [ebx + 4], 0x90C3F489   /* mov esp, esi; ret */
    call run
    cmp eax, 4
    jne 8f
    call run                          /* twice, so that a cache of decoded code has it */
    cmp eax, 4
    jne 8f
    mov eax, ebx
    xor edx, edx
    call dma
    test eax, eax
    jnz 8f
    call run
    test eax, eax                     /* nothing was added */
    jnz 8f
    cmp dword ptr [ebx], LETTERS
    jne 8f
    dec edi
    jnz 1b
    ret
8:  inc dword ptr [failures]
    PRINT "dmacode: old code ran, or DMA failed, at "
    mov eax, ebx
    mov cl, 8
    call put_hex
    PRINT " with "
    mov eax, edi
    call put_decimal
    PRINT " rounds to go\n"
    ret

/* Calls EBX with EAX zero; the code may push what it likes, because it restores ESP. */
run:
    push ebp
    xor eax, eax
    lea esi, [esp - 4]
    call ebx
    pop ebp
    ret

.section .rodata
.balign 4
/* Where nothing is: the end of the aperture for PCI, below the flash, above all RAM. */
hole_list: .long 0xF8000000, 0xFB123450, 0xFEB00000, 0xFED80000
hole_end:
.section .text

/* Holes read as all ones, and DMA to them leaves them so and RAM alone. */
holes:
    mov dx, 0x2F0                     /* a port that nobody has */
    in al, dx
    cmp al, 0xFF
    je 1f
    inc dword ptr [failures]
    PRINT "dmacode: port 2F0h is not all ones\n"
1:  mov ebx, offset hole_list
2:  mov edi, [ebx]
    mov eax, [edi]
    cmp eax, -1
    jne 8f
    mov dword ptr [edi], 0            /* a store goes nowhere too */
    mov ecx, edi                      /* where a lost hole would end up */
    and ecx, 0x003FFFFF
    or ecx, 0x00400000
    mov dword ptr [ecx], OLD_CODE
    mov eax, edi
    xor edx, edx
    call dma
    cmp dword ptr [ecx], OLD_CODE
    jne 8f
    mov eax, [edi]
    cmp eax, -1
    jne 8f
3:  add ebx, 4
    cmp ebx, offset hole_end
    jb 2b
    mov edx, 0x7F                     /* far above RAM */
    xor eax, eax
    call dma
    ret
8:  push eax
    inc dword ptr [failures]
    PRINT "dmacode: hole "
    mov eax, edi
    mov cl, 8
    call put_hex
    PRINT " holds "
    pop eax
    call put_hex
    PRINT "\n"
    jmp 3b
