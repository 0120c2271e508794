/*
 * A double of libnvidia-ml.so.1: NVML's C interface over a text file, for machines without a GPU.
 *
 * STANDIN_NVML names the file. Each line is "key value"; it is read again whenever it changes, so replacing the file is
 * how memory moves, processes come and go, a GPU fails or vanishes. driver.py writes it.
 *
 *   driver 580.126.09            cuda 13000               gpus 2
 *   gpu.0.uuid GPU-...           gpu.0.memory TOTAL RESERVED USED
 *   gpu.0.processes 2            gpu.0.process.0 PID BYTES GPU_INSTANCE COMPUTE_INSTANCE
 *   gpu.0.error 15               every call on this GPU fails with this code
 *   error.CALL 3                 this call fails with this code; 13 is what a call that the driver lacks gives
 *   gpu.0.error.CALL 3           the same on one GPU
 *   limits 1                     the driver keeps limits of memory for control groups, as long as this process lives
 *   events 1                     event.0 GPU XID: events so far; a set delivers those after its creation
 *
 * A value that is not in the file is NotSupported. Only what the agent calls is here. No CUDA.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10
};
enum { MAX_GPUS = 32, MAX_MIG = 8, UNKNOWN_BYTES = -1 };

typedef unsigned int uint;
typedef unsigned long long ull;
typedef struct { int gpu; int mig; } Device; /* mig: -1 for the GPU itself */
typedef struct { char *key; char *value; } Line;
typedef struct { long next; } EventSet;

typedef struct { ull total, free, used; } Memory;
typedef struct { uint version; ull total, reserved, free, used; } Memory2;
typedef struct { uint pid; ull bytes; } Process1;
typedef struct { uint pid; ull bytes; uint gpu_instance, compute_instance; } Process2;
typedef struct { char legacy[16]; uint domain, bus, device, id, subsystem; char name[32]; } Pci;
typedef struct { Device *device; ull type, data; uint gpu_instance, compute_instance; } Event;
typedef struct { uint start, size; } Placement;
typedef struct { uint id, p2p, slices, instances, sms, copy, dec, enc, jpeg, ofa; ull megabytes; } Profile1;
typedef struct { uint version, id, p2p, slices, instances, sms, copy, dec, enc, jpeg, ofa; ull megabytes; char name[96]; } Profile2;
typedef struct { uint version, channel, tpc; } Repair;
typedef struct { const char *group; ull soft, hard, used; } Limits; /* of a setter without the last */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Device devices[MAX_GPUS][MAX_MIG + 1];
static Line *lines;
static size_t count;
static char *text;
static struct stat seen;
static int users;

static int by_key(const void *a, const void *b) { return strcmp(((const Line *)a)->key, ((const Line *)b)->key); }

/* Reads the file again where it has changed. Returns 0 where there is none: no driver is loaded. */
static int refresh(void) {
    struct stat now;
    const char *path = getenv("STANDIN_NVML");
    if (!path || stat(path, &now)) return 0;
    if (text && now.st_ino == seen.st_ino && now.st_size == seen.st_size && now.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return 1;
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    char *fresh = malloc((size_t)now.st_size + 1);
    size_t size = fread(fresh, 1, (size_t)now.st_size, file), most = 1;
    fclose(file);
    fresh[size] = 0;
    for (char *at = fresh; *at; at++) most += *at == '\n';
    free(text), free(lines);
    text = fresh, lines = malloc(most * sizeof(Line)), count = 0, seen = now;
    char *rest = fresh, *line;
    while ((line = strsep(&rest, "\n"))) {
        char *space = strchr(line, ' ');
        if (!space || *line == '#') continue;
        *space = 0;
        lines[count++] = (Line){line, space + 1};
    }
    qsort(lines, count, sizeof(Line), by_key);
    return 1;
}

static const char *get(const char *format, ...) {
    char key[128];
    va_list given;
    va_start(given, format), vsnprintf(key, sizeof key, format, given), va_end(given);
    Line wanted = {key, NULL}, *found = count ? bsearch(&wanted, lines, count, sizeof(Line), by_key) : NULL;
    return found ? found->value : NULL;
}

static long number(const char *value, long otherwise) { return value ? strtol(value, NULL, 0) : otherwise; }

/* Enters a call on a GPU (-1: on none): takes the lock, and gives the code that the file asks for. */
static int enter(const char *call, int gpu) {
    pthread_mutex_lock(&lock);
    int there = refresh();
    if (!users) return UNINITIALIZED;
    if (!there) return DRIVER_NOT_LOADED;
    const char *code = get("error.%s", call);
    if (!code && gpu >= 0 && !(code = get("gpu.%d.error.%s", gpu, call))) code = get("gpu.%d.error", gpu);
    return (int)number(code, SUCCESS);
}

static int leave(int code) { return pthread_mutex_unlock(&lock), code; }

#define ENTER(gpu)                                                                                                     \
    do {                                                                                                               \
        int code_ = enter(__func__, gpu);                                                                              \
        if (code_) return leave(code_);                                                                                \
    } while (0)
#define ABSENT(value)                                                                                                  \
    do {                                                                                                               \
        if (!(value)) return leave(NOT_SUPPORTED);                                                                     \
    } while (0)

static int initialize(const char *call) {
    pthread_mutex_lock(&lock);
    if (!refresh()) return leave(DRIVER_NOT_LOADED);
    int code = (int)number(get("error.%s", call), SUCCESS);
    for (int gpu = 0; gpu < MAX_GPUS; gpu++)
        for (int mig = 0; mig <= MAX_MIG; mig++) devices[gpu][mig] = (Device){gpu, mig - 1};
    users += !code;
    return leave(code);
}

int nvmlInitWithFlags(uint flags) { return (void)flags, initialize(__func__); }
int nvmlInit_v2(void) { return initialize(__func__); }

int nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    if (!users) return leave(UNINITIALIZED);
    users--;
    return leave(SUCCESS);
}

const char *nvmlErrorString(int code) { return code ? "an error of the stand-in driver" : "Success"; }

static int copy(const char *value, char *to, uint size) {
    ABSENT(value);
    snprintf(to, size, "%s", value);
    return leave(SUCCESS);
}

static int give(const char *value, uint *to) {
    ABSENT(value);
    *to = (uint)number(value, 0);
    return leave(SUCCESS);
}

int nvmlSystemGetDriverVersion(char *to, uint size) { ENTER(-1); return copy(get("driver"), to, size); }
int nvmlSystemGetCudaDriverVersion(int *to) { ENTER(-1); return give(get("cuda"), (uint *)to); }
int nvmlSystemGetCudaDriverVersion_v2(int *to) { ENTER(-1); return give(get("cuda"), (uint *)to); }
int nvmlDeviceGetCount_v2(uint *to) { ENTER(-1); return give(get("gpus"), to); }

int nvmlDeviceGetHandleByIndex_v2(uint index, Device **to) {
    ENTER((int)index);
    if (index >= (uint)number(get("gpus"), 0) || index >= MAX_GPUS) return leave(INVALID_ARGUMENT);
    *to = &devices[index][0];
    return leave(SUCCESS);
}

int nvmlDeviceGetUUID(Device *device, char *to, uint size) {
    ENTER(device->gpu);
    if (device->mig < 0) return copy(get("gpu.%d.uuid", device->gpu), to, size);
    return copy(get("gpu.%d.mig.%d.uuid", device->gpu, device->mig), to, size);
}

int nvmlDeviceGetName(Device *device, char *to, uint size) {
    ENTER(device->gpu);
    if (device->mig < 0) return copy(get("gpu.%d.name", device->gpu), to, size);
    return copy(get("gpu.%d.mig.%d.name", device->gpu, device->mig), to, size);
}

int nvmlDeviceGetMinorNumber(Device *device, uint *to) { ENTER(device->gpu); return give(get("gpu.%d.minor", device->gpu), to); }
int nvmlDeviceGetComputeMode(Device *device, uint *to) { ENTER(device->gpu); return give(get("gpu.%d.computemode", device->gpu), to); }
int nvmlDeviceGetNumaNodeId(Device *device, uint *to) { ENTER(device->gpu); return give(get("gpu.%d.numa", device->gpu), to); }

/* Limits by GPU and control group. They are few, and no test looks for what happens to more. */
static struct { int gpu; char group[512]; ull hard; } limits[64];
static size_t limited;

static ull *limit_of(int gpu, const char *group, int make) {
    for (size_t at = 0; at < limited; at++)
        if (limits[at].gpu == gpu && !strcmp(limits[at].group, group)) return &limits[at].hard;
    if (!make || limited == sizeof limits / sizeof *limits) return NULL;
    limits[limited].gpu = gpu;
    snprintf(limits[limited].group, sizeof limits[limited].group, "%s", group);
    return &limits[limited++].hard;
}

int nvmlDeviceGetMemoryLimits_v1(Device *device, Limits *to) {
    ENTER(device->gpu);
    ABSENT(get("limits"));
    ull *found = limit_of(device->gpu, to->group, 0);
    to->soft = to->used = 0, to->hard = found ? *found : ~0ull;
    return leave(SUCCESS);
}

int nvmlDeviceSetMemoryLimits_v1(Device *device, Limits *from) {
    ENTER(device->gpu);
    ABSENT(get("limits"));
    ull *found = limit_of(device->gpu, from->group, 1);
    if (found) *found = from->hard;
    return leave(found ? SUCCESS : INSUFFICIENT_SIZE);
}

static int pci(const char *value, Pci *to) {
    ABSENT(value);
    memset(to, 0, sizeof *to);
    sscanf(value, "%x:%x:%x", &to->domain, &to->bus, &to->device);
    snprintf(to->name, sizeof to->name, "%s", value);
    snprintf(to->legacy, sizeof to->legacy, "%.15s", value);
    return leave(SUCCESS);
}

int nvmlDeviceGetPciInfo_v3(Device *device, Pci *to) { ENTER(device->gpu); return pci(get("gpu.%d.pci", device->gpu), to); }

static int two(const char *value, uint *first, uint *second) {
    ABSENT(value);
    sscanf(value, "%u %u", first, second);
    return leave(SUCCESS);
}

int nvmlDeviceGetCudaComputeCapability(Device *device, uint *major, uint *minor) {
    ENTER(device->gpu);
    return two(get("gpu.%d.capability", device->gpu), major, minor);
}

int nvmlDeviceGetEccMode(Device *device, uint *current, uint *pending) {
    ENTER(device->gpu);
    return two(get("gpu.%d.ecc", device->gpu), current, pending);
}

int nvmlDeviceGetMigMode(Device *device, uint *current, uint *pending) {
    ENTER(device->gpu);
    return two(get("gpu.%d.migmode", device->gpu), current, pending);
}

static const char *memory_of(Device *device) {
    return device->mig < 0 ? get("gpu.%d.memory", device->gpu) : get("gpu.%d.mig.%d.memory", device->gpu, device->mig);
}

int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory2 *to) {
    ENTER(device->gpu);
    const char *value = memory_of(device);
    ABSENT(value);
    sscanf(value, "%llu %llu %llu", &to->total, &to->reserved, &to->used);
    to->free = to->total - to->reserved - to->used;
    return leave(SUCCESS);
}

/* The first version counts what the driver keeps as used. */
int nvmlDeviceGetMemoryInfo(Device *device, Memory *to) {
    ENTER(device->gpu);
    const char *value = memory_of(device);
    ull reserved;
    ABSENT(value);
    sscanf(value, "%llu %llu %llu", &to->total, &reserved, &to->used);
    to->used += reserved;
    to->free = to->total - to->used;
    return leave(SUCCESS);
}

int nvmlDeviceGetTotalEccErrors(Device *device, uint type, uint counter, ull *to) {
    ENTER(device->gpu);
    const char *value = get("gpu.%d.eccerrors.%u.%u", device->gpu, type, counter);
    ABSENT(value);
    *to = strtoull(value, NULL, 0);
    return leave(SUCCESS);
}

int nvmlDeviceGetRemappedRows(Device *device, uint *corrected, uint *uncorrected, uint *pending, uint *failure) {
    ENTER(device->gpu);
    const char *value = get("gpu.%d.rows", device->gpu);
    ABSENT(value);
    sscanf(value, "%u %u %u %u", corrected, uncorrected, pending, failure);
    return leave(SUCCESS);
}

int nvmlDeviceGetRetiredPagesPendingStatus(Device *device, uint *to) {
    ENTER(device->gpu);
    return give(get("gpu.%d.retiring", device->gpu), to);
}

int nvmlDeviceGetRepairStatus(Device *device, Repair *to) {
    ENTER(device->gpu);
    return two(get("gpu.%d.repair", device->gpu), &to->channel, &to->tpc);
}

int nvmlDeviceGetP2PStatus(Device *one, Device *other, uint index, uint *to) {
    ENTER(one->gpu);
    return give(get("gpu.%d.p2p.%u.%d", one->gpu, index, other->gpu), to);
}

int nvmlDeviceGetNvLinkState(Device *device, uint link, uint *to) {
    ENTER(device->gpu);
    return give(get("gpu.%d.link.%u", device->gpu, link), to);
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device *device, uint link, Pci *to) {
    ENTER(device->gpu);
    return pci(get("gpu.%d.remote.%u", device->gpu, link), to);
}

/* --- MIG ----------------------------------------------------------------------------------------------------------- */

int nvmlDeviceGetMaxMigDeviceCount(Device *device, uint *to) { ENTER(device->gpu); return give(get("gpu.%d.maxmig", device->gpu), to); }

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, uint index, Device **to) {
    ENTER(device->gpu);
    if (index >= MAX_MIG || !get("gpu.%d.mig.%u.uuid", device->gpu, index)) return leave(NOT_FOUND);
    *to = &devices[device->gpu][index + 1];
    return leave(SUCCESS);
}

int nvmlDeviceGetGpuInstanceId(Device *device, uint *to) {
    ENTER(device->gpu);
    return give(get("gpu.%d.mig.%d.instance", device->gpu, device->mig), to);
}

int nvmlDeviceGetComputeInstanceId(Device *device, uint *to) {
    ENTER(device->gpu);
    return give(get("gpu.%d.mig.%d.compute", device->gpu, device->mig), to);
}

/* "ID SLICES MOST MEGABYTES NAME" */
int nvmlDeviceGetGpuInstanceProfileInfoV(Device *device, uint profile, Profile2 *to) {
    ENTER(device->gpu);
    const char *value = get("gpu.%d.profile.%u", device->gpu, profile);
    ABSENT(value);
    sscanf(value, "%u %u %u %llu %95[^\n]", &to->id, &to->slices, &to->instances, &to->megabytes, to->name);
    return leave(SUCCESS);
}

int nvmlDeviceGetGpuInstanceProfileInfo(Device *device, uint profile, Profile1 *to) {
    ENTER(device->gpu);
    const char *value = get("gpu.%d.profile.%u", device->gpu, profile);
    ABSENT(value);
    sscanf(value, "%u %u %u %llu", &to->id, &to->slices, &to->instances, &to->megabytes);
    return leave(SUCCESS);
}

/* "START:SIZE START:SIZE" */
int nvmlDeviceGetGpuInstancePossiblePlacements_v2(Device *device, uint id, Placement *to, uint *size) {
    ENTER(device->gpu);
    const char *value = get("gpu.%d.placements.%u", device->gpu, id);
    ABSENT(value);
    uint most = to ? *size : 0, found = 0, start, length;
    int read = 0;
    for (; sscanf(value, "%u:%u%n", &start, &length, &read) == 2; value += read, found++)
        if (found < most) to[found] = (Placement){start, length};
    *size = found;
    return leave(to && found > most ? INSUFFICIENT_SIZE : SUCCESS);
}

int nvmlDeviceGetGpuInstanceRemainingCapacity(Device *device, uint id, uint *to) {
    ENTER(device->gpu);
    return give(get("gpu.%d.capacity.%u", device->gpu, id), to);
}

/* --- processes ------------------------------------------------------------------------------------------------------ */

static int processes(Device *device, const char *kind, uint *size, void *to, int version) {
    const char *value = get("gpu.%d.%ses", device->gpu, kind);
    uint there = (uint)number(value, 0), most = *size;
    if (!value && strcmp(kind, "process")) return leave(NOT_SUPPORTED);
    *size = there;
    if (there && (!to || most < there)) return leave(INSUFFICIENT_SIZE);
    for (uint at = 0; at < there; at++) {
        uint pid = 0, instance = ~0U, compute = ~0U;
        long long bytes = UNKNOWN_BYTES;
        sscanf(get("gpu.%d.%s.%u", device->gpu, kind, at), "%u %lld %u %u", &pid, &bytes, &instance, &compute);
        if (version == 1) ((Process1 *)to)[at] = (Process1){pid, (ull)bytes};
        else ((Process2 *)to)[at] = (Process2){pid, (ull)bytes, instance, compute};
    }
    return leave(SUCCESS);
}

#define PROCESSES(call, kind, version)                                                                                 \
    int call(Device *device, uint *size, void *to) { ENTER(device->gpu); return processes(device, kind, size, to, version); }

PROCESSES(nvmlDeviceGetComputeRunningProcesses, "process", 1)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "process", 2)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "process", 2)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, "graphicsprocess", 1)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphicsprocess", 2)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphicsprocess", 2)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, "mpsprocess", 1)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mpsprocess", 2)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mpsprocess", 2)

/* --- events --------------------------------------------------------------------------------------------------------- */

int nvmlEventSetCreate(EventSet **to) {
    ENTER(-1);
    *to = malloc(sizeof **to);
    (*to)->next = number(get("events"), 0);
    return leave(SUCCESS);
}

int nvmlEventSetFree(EventSet *set) { return free(set), SUCCESS; }
int nvmlDeviceRegisterEvents(Device *device, ull types, EventSet *set) { (void)types, (void)set; ENTER(device->gpu); return leave(SUCCESS); }

int nvmlEventSetWait_v2(EventSet *set, Event *to, uint milliseconds) {
    uint step = milliseconds < 10 ? milliseconds : 10;
    for (uint waited = 0;; waited += step) {
        ENTER(-1);
        const char *value = set->next < number(get("events"), 0) ? get("event.%ld", set->next) : NULL;
        if (value) {
            uint gpu = 0;
            set->next++;
            *to = (Event){NULL, 8, 0, ~0U, ~0U};
            sscanf(value, "%u %llu", &gpu, &to->data);
            to->device = &devices[gpu % MAX_GPUS][0];
            return leave(SUCCESS);
        }
        leave(SUCCESS);
        if (waited >= milliseconds) return TIMEOUT;
        usleep(step * 1000);
    }
}
