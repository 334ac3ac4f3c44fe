# A database that writes its pages through io_uring: bootstrap, queries, fast shutdown.
cd "$TMP"
mkdir data
server="mariadbd --no-defaults --user=root --datadir=$TMP/data --skip-grant-tables --innodb-use-native-aio=1 --innodb-buffer-pool-size=8M --innodb-flush-method=O_DIRECT"
$server --bootstrap </dev/null 2>log || cat log
$server --socket="$TMP/s" --pid-file="$TMP/pid" --skip-networking >log 2>&1 &
until [ -S s ]; do kill -0 $! || break; sleep 0.1; done
mariadb --no-defaults --socket="$TMP/s" -N <<'Q'
create database t; use t;
create table a(i int primary key auto_increment, s varchar(500), x int, key(x)) engine=innodb;
insert into a(s, x) select repeat(char(65 + seq % 26), 400), seq * 7919 % 10007 from seq_1_to_20000;
select count(*), sum(x), md5(group_concat(distinct left(s, 1) order by 1)) from a;
update a set x = x + 1 where i % 3 = 0; delete from a where i % 7 = 0;
begin; delete from a; rollback;
select count(*), sum(x), sum(crc32(s)) from a; check table a;
select sum(x) from a where x between 100 and 2000;
Q
mariadb-admin --no-defaults --socket="$TMP/s" shutdown
wait $!
echo "ended $?"
