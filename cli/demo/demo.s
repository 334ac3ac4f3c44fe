# The guest that `calque demo` runs: draws the Mandelbrot set with SSE2, counts primes with integer code, and leaves
# through exit_group. No libc, so that it stays a few kilobytes.
#
# Rebuild:  gcc -nostdlib -static -no-pie -Wl,--build-id=none,-z,noseparate-code -s -o demo.elf demo.s

        .intel_syntax noprefix
        .set    COLUMNS, 76
        .set    ROWS, 23
        .set    STEPS, 240              # iterations before a point counts as inside
        .set    LIMIT, 1000000          # primes below this are counted

        .section .rodata
        .balign 8
start:   .double -2.1
upper:    .double -1.2
stepx:     .double 0.0395
stepy:     .double 0.1049
four:   .double 4.0
shades: .ascii  " .,:;=+ox%#@"
        .set    SHADES, . - shades
title:  .ascii  "An x86-64 program, translated:\n\n"
        .set    TITLE, . - title
tail:   .ascii  " primes below 1000000\n"
        .set    TAIL, . - tail

        .bss
line:   .skip   COLUMNS + 1
digits: .skip   16
sieve:  .skip   LIMIT

        .text
        .globl  _start
_start:
        lea     rsi, title[rip]
        mov     edx, TITLE
        call    write

        xor     r12d, r12d              # row
row:    xor     r13d, r13d              # column
column: call    point
        lea     rdi, line[rip]
        mov     [rdi + r13], al
        inc     r13d
        cmp     r13d, COLUMNS
        jb      column
        mov     byte ptr [rdi + r13], '\n'
        mov     rsi, rdi
        mov     edx, COLUMNS + 1
        call    write
        inc     r12d
        cmp     r12d, ROWS
        jb      row

        call    primes
        call    print
        mov     eax, 231                # exit_group
        xor     edi, edi
        syscall

# The character for the point at column r13, row r12, in al.
point:  cvtsi2sd xmm0, r13d
        mulsd   xmm0, stepx[rip]
        addsd   xmm0, start[rip]         # real part of c
        cvtsi2sd xmm1, r12d
        mulsd   xmm1, stepy[rip]
        addsd   xmm1, upper[rip]          # imaginary part of c
        pxor    xmm2, xmm2              # z = 0
        pxor    xmm3, xmm3
        xor     ecx, ecx
1:      movapd  xmm4, xmm2
        movapd  xmm5, xmm3
        mulsd   xmm4, xmm4
        mulsd   xmm5, xmm5
        movapd  xmm6, xmm4
        addsd   xmm6, xmm5
        comisd  xmm6, four[rip]
        ja      2f                      # |z| > 2: it escapes
        mulsd   xmm3, xmm2
        addsd   xmm3, xmm3
        addsd   xmm3, xmm1
        movapd  xmm2, xmm4
        subsd   xmm2, xmm5
        addsd   xmm2, xmm0              # z = z * z + c
        inc     ecx
        cmp     ecx, STEPS
        jb      1b
2:      lea     edx, [rcx + 1]          # shades go by powers of two of the steps
        bsr     ecx, edx
        lea     eax, [rcx + rcx]
        sub     ecx, 1
        jb      3f
        bt      edx, ecx                # and halves of them
        adc     eax, -1
3:      mov     edx, SHADES - 1
        cmp     eax, edx
        cmova   eax, edx
        lea     rdx, shades[rip]
        movzx   eax, byte ptr [rdx + rax]
        ret

# The number of primes below LIMIT, in eax.
primes: lea     rdi, sieve[rip]
        mov     ecx, LIMIT
        mov     al, 1
        rep     stosb
        lea     rdi, sieve[rip]
        xor     eax, eax
        mov     esi, 2
1:      cmp     byte ptr [rdi + rsi], 0
        je      3f
        inc     eax
        mov     rcx, rsi
        imul    rcx, rsi
2:      cmp     rcx, LIMIT
        jae     3f
        mov     byte ptr [rdi + rcx], 0
        add     rcx, rsi
        jmp     2b
3:      inc     esi
        cmp     esi, LIMIT
        jb      1b
        ret

# Writes eax in decimal and the closing words.
print:  lea     rsi, digits[rip + 16]
        mov     ecx, 10
1:      xor     edx, edx
        div     ecx
        add     dl, '0'
        dec     rsi
        mov     [rsi], dl
        test    eax, eax
        jnz     1b
        lea     rdx, digits[rip + 16]
        sub     rdx, rsi
        call    write
        lea     rsi, tail[rip]
        mov     edx, TAIL

# write(1, rsi, rdx)
write:  mov     eax, 1
        mov     edi, 1
        syscall
        ret

        .section .note.GNU-stack, "", @progbits
