//! An administrator's ordinary work: what changes the kernel's code, by static keys and by the function tracer, what
//! changes its state on other CPUs, and what loads code.

/// What is done once before the work.
pub const PREPARE: [&str; 2] =
    ["mount -t tracefs tracefs /sys/kernel/tracing", "mount -t cgroup2 none /sys/fs/cgroup"];

/// The work. It can be done any number of times.
pub const WORK: [&str; 4] = [
    "cd /sys/kernel/tracing; echo 1 > events/sched/sched_switch/enable; echo 0 > events/sched/sched_switch/enable",
    "echo function > current_tracer; ls / > /dev/null; echo nop > current_tracer; cd /",
    "cd /sys/fs/cgroup; echo +memory > cgroup.subtree_control; echo -memory > cgroup.subtree_control; cd /",
    "echo 1 > /proc/sys/kernel/sched_schedstats; echo 0 > /proc/sys/kernel/sched_schedstats",
];

/// What is done besides on a machine of several CPUs: a CPU goes off and on.
pub const CPU_OFF_AND_ON: &str =
    "cd /sys/devices/system/cpu; echo 0 > cpu1/online && echo 1 > cpu1/online && cd /";

/// Returns the command that loads and unloads the module `name`, whose file is in `folder`.
pub fn load(folder: &str, name: &str) -> String {
    format!("insmod {folder}/{name}.ko && rmmod {name}")
}
