-- On the first primary, once; the replica gets all of it by replication.
create database demo;
create table demo.visits (id bigint auto_increment primary key, at timestamp default current_timestamp, web varchar(32), app varchar(32));
create user demo@'10.80.2.%' identified by 'demo';
grant insert, select on demo.* to demo@'10.80.2.%';
create user repl@'10.80.3.%' identified by 'repl';
grant replication slave on *.* to repl@'10.80.3.%';
-- For lb's check: it may log in, and nothing else.
create user lb@'10.80.3.%';
-- For promote.sh and replicate.sh, by the management network alone.
create user operator@'10.80.9.%' identified by 'operator';
grant all on *.* to operator@'10.80.9.%' with grant option;
