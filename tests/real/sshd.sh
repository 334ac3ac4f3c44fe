# sshd and ssh: a command, a terminal, a copy, three ciphers.
cd "$TMP"
mkdir -p /run/sshd 2>/dev/null
ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t rsa -N '' -f user
printf '%s\n' "HostKey $TMP/host" "AuthorizedKeysFile $TMP/user.pub" 'StrictModes no' 'UsePAM no' 'PidFile none' \
    'PermitRootLogin yes' 'Subsystem sftp internal-sftp' >server
# inetd mode: a connection is a pair of pipes
printf '%s\n' 'Host *' "IdentityFile $TMP/user" 'StrictHostKeyChecking no' 'UserKnownHostsFile /dev/null' 'LogLevel ERROR' \
    "ProxyCommand /usr/sbin/sshd -i -f $TMP/server" >client
s="ssh -F $TMP/client x@127.0.0.1 -l $(id -un)"
$s 'echo hello; exit 5'; echo "status $?"
ssh -tt -F client -l "$(id -un)" x 'tty >/dev/null && echo a terminal' | tr -d '\r'
head -c 3000000 /usr/bin/perl >f
scp -q -F client f "$(id -un)@x:$TMP/g" && cmp f g && echo same
for cipher in aes256-gcm@openssh.com chacha20-poly1305@openssh.com aes128-ctr; do
    ssh -c $cipher -F client -l "$(id -un)" x cat <f | md5sum
done
