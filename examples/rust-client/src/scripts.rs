//! The project's own Lua files: `fence.lua` begins those that write.

macro_rules! fenced {
    ($file:literal) => {
        concat!(
            include_str!("../../../cluster_layer/scripts/fence.lua"),
            include_str!(concat!("../../../cluster_layer/scripts/", $file))
        )
    };
}

pub const INBOX_APPEND: &str = fenced!("inbox_append.lua");
pub const QUEUE_PUSH: &str = fenced!("queue_push.lua");
pub const GROUP_SEND: &str = fenced!("group_send.lua");
pub const GROUP_STORE: &str = fenced!("group_store.lua");
pub const GROUP_LEAVE: &str = fenced!("group_leave.lua");
pub const QUEUE_POP: &str = include_str!("../../../cluster_layer/scripts/queue_pop.lua");
pub const TOPOLOGY_INSTALL: &str =
    include_str!("../../../cluster_layer/scripts/topology_install.lua");
