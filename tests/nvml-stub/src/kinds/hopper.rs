//! H100 and H200 on an HGX board, with their NVSwitches and the fabric manager.

use nvml_wrapper_sys::bindings as nvml;

use super::{Instance, MIB, Mig, Model, NvLink, Thresholds};
use crate::readings::Reading;

pub(super) const H100: Model = Model {
    name: "NVIDIA H100 80GB HBM3",
    brand: nvml::nvmlBrandType_enum_NVML_BRAND_NVIDIA,
    architecture: nvml::NVML_DEVICE_ARCH_HOPPER,
    compute_capability: [9, 0],
    pci_device: 0x2330_10de,
    pci_subsystem: 0x16c1_10de,
    serial_first: 1_654_423_001_590,
    board_part_number: "692-2G520-0200-000",
    vbios: "96.00.74.00.01",
    inforom_image: "G520.0200.00.05",
    has_gsp: true,
    memory_bytes: 81_559 * MIB,
    bar1_bytes: 131_072 * MIB,
    power_default: 700_000,
    power_min: 200_000,
    power_max: 700_000,
    clocks_max: [1980, 1980, 2619, 1545],
    thresholds: Thresholds { shutdown: 95, slowdown: 89, memory_max: Some(95), gpu_max: Some(87) },
    margins: Some([-8, -2, 0, 0]),
    pcie_generation_max: 5,
    pcie_width_max: 16,
    clock_events: 0x1ff,
    events: 0x11f,
    nvlink: Some(NvLink {
        version: nvml::nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_4_0,
        links: 18,
        speed_mbps: 26_562,
        switches: 4,
        switch_pci_device: 0x22a3_10de,
        has_packet_counters: true,
        has_ecc_counters: false,
    }),
    remap_banks: Some(2560),
    ecc_locations: &[nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM],
    has_sram_sources: true,
    has_retirement_times: false,
    has_process_utilization: true,
    has_gpm: true,
    field_last: u32::MAX,
    mig: Mig::Off,
    base: &[UTILIZATION, BASE],
    growth: &[
        (Reading::Energy, 412_300.0),
        (Reading::ClockEventPowerCapTime, 2_000_000.0),
        (Reading::PcieTransmitBytes, 3.2e9),
        (Reading::PcieReceiveBytes, 1.6e9),
        (Reading::NvlinkTransmitBytes, 9.0e10),
        (Reading::NvlinkReceiveBytes, 7.2e10),
    ],
    lacks: &[LACKS],
};

pub(super) const H200: Model = Model {
    name: "NVIDIA H200",
    pci_device: 0x2335_10de,
    pci_subsystem: 0x18be_10de,
    serial_first: 1_654_724_002_180,
    board_part_number: "692-2G520-0280-000",
    vbios: "96.00.BC.00.01",
    inforom_image: "G520.0280.00.05",
    memory_bytes: 143_771 * MIB,
    bar1_bytes: 262_144 * MIB,
    clocks_max: [1980, 1980, 3201, 1545],
    remap_banks: Some(3072),
    base: &[
        &[
            (Reading::Temperature, 48.0),
            (Reading::MemoryTemperature, 57.0),
            (Reading::MemoryReserved, 618.0 * MIB as f64),
            (Reading::ClockMemory, 3201.0),
        ],
        UTILIZATION,
        BASE,
    ],
    ..H100
};

/// An H100 that is split in three, with two slices to spare.
pub(super) const H100_MIG: Model = Model {
    remap_banks: None,
    has_process_utilization: false,
    mig: Mig::On(&[
        Instance {
            id: 1,
            profile: "3g.40gb",
            slices: 3,
            multiprocessors: 60,
            copy_engines: 3,
            decoders: 3,
            jpeg_engines: 3,
            memory_bytes: 40_448 * MIB,
        },
        Instance { id: 7, ..SLICE },
        Instance { id: 8, ..SLICE },
    ]),
    base: &[BASE],
    lacks: &[LACKS, SPLIT_LACKS],
    ..H100
};

const SLICE: Instance = Instance {
    id: 0,
    profile: "1g.10gb",
    slices: 1,
    multiprocessors: 16,
    copy_engines: 1,
    decoders: 1,
    jpeg_engines: 1,
    memory_bytes: 9856 * MIB,
};

const UTILIZATION: &[(Reading, f64)] = &[(Reading::UtilizationGpu, 87.0), (Reading::UtilizationMemory, 41.0)];

const BASE: &[(Reading, f64)] = &[
    (Reading::Temperature, 46.0),
    (Reading::MemoryTemperature, 54.0),
    (Reading::PowerInstant, 412_300.0),
    (Reading::PowerLimit, 700_000.0),
    (Reading::MemoryReserved, 454.0 * MIB as f64),
    (Reading::Bar1Used, 1.0 * MIB as f64),
    (Reading::ClockGraphics, 1755.0),
    (Reading::ClockSm, 1755.0),
    (Reading::ClockMemory, 2619.0),
    (Reading::ClockVideo, 1365.0),
    (Reading::PcieGeneration, 5.0),
    (Reading::PcieWidth, 16.0),
    (Reading::EccEnabled, 1.0),
    (Reading::PersistenceMode, 1.0),
    (Reading::FabricState, 3.0),
    (Reading::GpmGraphics, 87.0),
    (Reading::GpmSm, 81.5),
    (Reading::GpmSmOccupancy, 44.25),
    (Reading::GpmInteger, 12.5),
    (Reading::GpmTensor, 36.75),
    (Reading::GpmDram, 38.5),
    (Reading::GpmFp64, 0.25),
    (Reading::GpmFp32, 21.5),
    (Reading::GpmFp16, 4.5),
];

const LACKS: &[Reading] =
    &[Reading::FanSpeed, Reading::RetiredPagesSingleBit, Reading::RetiredPagesDoubleBit, Reading::RetiredPagesPending];

/// What is the instances' own matter on a card that is split.
const SPLIT_LACKS: &[Reading] = &[
    Reading::UtilizationGpu,
    Reading::UtilizationMemory,
    Reading::UtilizationEncoder,
    Reading::UtilizationDecoder,
    Reading::UtilizationJpeg,
    Reading::UtilizationOfa,
    Reading::RemappedRowsCorrectable,
    Reading::RemappedRowsUncorrectable,
    Reading::RemappedRowsPending,
    Reading::RemappedRowsFailure,
];
