-- Answer a question that was published; whoever asked reads the list.
-- KEYS[1]  list: the answers to one question
-- ARGV[1]  the answer
-- ARGV[2]  how long answers are kept, ms
-- Reply    1.
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
