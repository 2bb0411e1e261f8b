//! A stand-in for `libnvidia-ml.so.1`: tests load it through the same dlopen, and it answers what their scenario says.
//!
//! The agent's reading of GPUs is mostly about what goes wrong: a card that falls off the bus, a call that never
//! returns, a number that means "no value". No machine shows these on demand, so a file does. It is named by the
//! environment variable `BELFRY_NVML_STUB`, read at `nvmlInit`, and read again whenever it changes: a test replaces it
//! by rename while the agent runs. A file that does not parse leaves the scenario before it in force.
//!
//! ```toml
//! driver_version = "550.90.07"        # from 580.82 on, the throttle times have other field ids
//! nvml_version = "12.550.90.07"
//! cuda_version = 12040
//! init_error = "driver_not_loaded"    # an error is named as NVML names it, without NVML_ERROR_
//! log = "calls.log"                   # one line a call: its name, and the GPU's index if it has one
//!
//! [[gpu]]                             # in the order of their indices
//! kind = "h100"                       # a100 | h100 | h200 | h100_mig | k80 | t4
//! count = 8
//! lost = true                         # each call with its handle fails with gpu_is_lost
//! uuid = "GPU-…"                      # only with a count of 1; else made from the index
//! [gpu.values]                        # readings by name, see `readings::Reading`
//! temperature = 45
//! power_instant = { from = 100000, per_second = 500, max = 700000 }
//! [[gpu.process]]
//! pid = 1234
//! memory = 1073741824                 # bytes; 18446744073709551615 is NVML's "not available"
//! kind = "compute"                    # compute | graphics | mps
//! sm = 90                             # %, as mem, enc and dec
//! gpu_instance = 1                    # and compute_instance: where it runs on a MIG card
//!
//! [[fault]]                           # the first that matches a call wins
//! call = "nvmlDeviceGetTemperature"   # or "*"
//! gpu = 3                             # only this GPU
//! field = 186                         # only this value of nvmlDeviceGetFieldValues: takes `error` or `value`
//! from = 2.0                          # seconds since the scenario was loaded
//! until = 10.0
//! error = "gpu_is_lost"               # or one of: value = 4294967295 (what the first output of a call that succeeds
//!                                     # holds), hang = true (until the fault is over), crash = true, delay_ms = 1500
//!
//! [[xid]]                             # for event sets where the GPU is registered for critical XIDs
//! gpu = 3
//! code = 79
//! at = 2.0                            # seconds since the scenario was loaded; told to sets that listened by then
//! gpu_instance = 1
//! ```
//!
//! From the outside in: `api` has the exported functions, one file a subject; `dispatch` is the way that each of them
//! takes; `library` holds what outlives a call; `card` answers for one GPU; `kinds` says what a kind of card is and
//! lacks; `scenario` is the file.
//!
//! Absent: anything that changes a card (the two setters refuse), vGPUs, units, and what older drivers lack: but for the
//! ids of the throttle times, `driver_version` is only a name. A caller that breaks NVML's contract on pointers breaks
//! the stub as it would break NVML.

mod abi;
mod api;
mod card;
mod changes;
mod clock;
mod codes;
mod dispatch;
mod events;
mod fields;
mod gpm;
mod handle;
mod kinds;
mod library;
mod outputs;
mod readings;
mod scenario;
