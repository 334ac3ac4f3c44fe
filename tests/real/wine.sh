# wine makes a home for 64-bit Windows programs, and runs some.
cd "$TMP"
export WINEPREFIX=$TMP/home WINEARCH=win64 WINEDEBUG=-all DISPLAY=
wine=/usr/lib/wine/wine64
$wine cmd /c 'echo hello & ver & set /a 6*7 & exit 5' 2>/dev/null
echo "status $?"
$wine reg query 'HKLM\Software\Microsoft\Windows NT\CurrentVersion' /v CurrentVersion 2>/dev/null
/usr/lib/wine/wineserver64 -k
