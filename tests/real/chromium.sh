# A page with a script, rendered without a screen and printed as text.
cd "$TMP"
cat >p.html <<'H'
<!doctype html><title>t</title><p id=a></p><script>let s=0;for(let i=0;i<200000;i++)s=(s*31+i)|0;
document.getElementById('a').textContent=s+' '+[3,1,2].sort()+' '+/b+/.exec('abbc')[0];</script>
H
chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$TMP/profile" --dump-dom "file://$TMP/p.html" 2>/dev/null
