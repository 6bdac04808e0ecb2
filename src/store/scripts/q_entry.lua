-- q_entry, before the scripts that put ids into the stream of those whose turn has come. Redis finds an entry by
-- looking at all that stand before it in its node, which has 4,096 bytes or 100 entries. So entries are long, and few
-- in a node.
local pad = '----------------------------------------------------------------------------------------------------'
