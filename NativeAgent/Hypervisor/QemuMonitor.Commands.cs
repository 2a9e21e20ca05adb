using System.Text.Json;
using System.Text.Json.Nodes;

namespace FCtrans.Agent.Hypervisor;

/// <summary>What <c>query-status</c> says.</summary>
/// <param name="State"><c>running</c>, <c>paused</c>, <c>inmigrate</c>, <c>finish-migrate</c>, <c>postmigrate</c>, <c>prelaunch</c>, …</param>
internal readonly record struct VmRunState(string State, bool Running);

/// <summary>What <c>query-migrate</c> says.</summary>
/// <param name="Status"><c>none</c>, <c>setup</c>, <c>active</c>, <c>pre-switchover</c>, <c>device</c>, <c>completed</c>, <c>failed</c>, <c>cancelling</c>, <c>cancelled</c>.</param>
/// <param name="RamTotalBytes">All RAM that QEMU means to send: with x-ignore-shared about 1 MB.</param>
/// <param name="RamTransferredBytes">Sent until now, with the device state.</param>
/// <param name="Error">Why it failed; empty if it did not, or QEMU does not say.</param>
/// <param name="DowntimeMilliseconds">-1 until it is known.</param>
internal sealed record MigrationInfo(
    string Status, long RamTotalBytes, long RamTransferredBytes, string Error, long DowntimeMilliseconds, long TotalMilliseconds)
{
    public bool Ended => Status is "completed" or "failed" or "cancelled";
}

/// <summary>A virtual CPU: the host thread that runs it.</summary>
/// <param name="Path">In QEMU's object tree; empty if it does not say.</param>
internal readonly record struct VmCpu(int Index, int ThreadId, string Path = "");

/// <summary>A memory device of a VM.</summary>
/// <param name="Backend">The id of its memory backend.</param>
/// <param name="Bytes">Of the backend.</param>
internal readonly record struct MemoryDevice(string Backend, long Bytes);

/// <summary>The commands that FCtrans uses, with their types.</summary>
internal sealed partial class QemuMonitor
{
    public VmRunState QueryStatus()
    {
        var status = Object(Execute("query-status"));
        return new VmRunState(Text(status["status"]), Flag(status["running"]));
    }

    /// <summary>Stops the virtual CPUs; returns when they stand and all I/O is done.</summary>
    public void Stop() => Execute("stop");

    public void Cont() => Execute("cont");

    /// <summary>Ends QEMU. It may be gone before it answers; that is no error.</summary>
    public void Quit()
    {
        try
        {
            Execute("quit");
        }
        catch (MonitorException e) when (e.ErrorClass == MonitorException.Closed)
        {
        }
    }

    /// <exception cref="MonitorException">This QEMU lacks one of them.</exception>
    public void SetMigrationCapabilities(IReadOnlyDictionary<string, bool> capabilities)
    {
        var list = new JsonArray();
        foreach (var (name, on) in capabilities)
        {
            list.Add((JsonNode)new JsonObject { ["capability"] = name, ["state"] = on });
        }

        Execute("migrate-set-capabilities", new JsonObject { ["capabilities"] = list });
    }

    /// <summary>The state of all migration capabilities of this QEMU.</summary>
    public IReadOnlyDictionary<string, bool> QueryMigrationCapabilities()
    {
        var capabilities = new Dictionary<string, bool>();
        foreach (var entry in Array(Execute("query-migrate-capabilities")))
        {
            var members = Object(entry);
            capabilities[Text(members["capability"])] = Flag(members["state"]);
        }

        return capabilities;
    }

    /// <param name="parameters">As <c>migrate-set-parameters</c> takes them: <c>downtime-limit</c> in ms, <c>max-bandwidth</c> in bytes/s, …</param>
    public void SetMigrationParameters(JsonObject parameters) => Execute("migrate-set-parameters", parameters);

    /// <summary>All migration parameters of this QEMU, by name.</summary>
    public JsonObject QueryMigrationParameters() => Object(Execute("query-migrate-parameters"));

    /// <param name="uri">Such as <c>unix:PATH</c>, <c>tcp:HOST:PORT</c>, <c>fd:NAME</c>, <c>exec:COMMAND</c>.</param>
    public void Migrate(string uri) => Execute("migrate", new JsonObject { ["uri"] = uri });

    /// <summary>Goes on from <c>pre-switchover</c>.</summary>
    public void MigrateContinue() => Execute("migrate-continue", new JsonObject { ["state"] = "pre-switchover" });

    public void MigrateCancel() => Execute("migrate_cancel");

    /// <summary>Makes a QEMU started with <c>-incoming defer</c> listen.</summary>
    public void MigrateIncoming(string uri) => Execute("migrate-incoming", new JsonObject { ["uri"] = uri });

    public MigrationInfo QueryMigrate()
    {
        var info = Object(Execute("query-migrate"));
        var ram = info["ram"] as JsonObject;
        string status = Text(info["status"]);
        return new MigrationInfo(
            status.Length == 0 ? "none" : status, Number(ram?["total"], 0), Number(ram?["transferred"], 0),
            Text(info["error-desc"]), Number(info["downtime"], -1), Number(info["total-time"], 0));
    }

    /// <summary>Why QEMU would refuse to migrate the VM: devices that can't, or whose state is of this host. Empty before QEMU 6.0, which does not say.</summary>
    public IReadOnlyList<string> QueryMigrationBlockers() =>
        Object(Execute("query-migrate"))["blocked-reasons"] is JsonArray reasons ? [.. reasons.Select(Text)] : [];

    /// <summary>A property of an object of QEMU's.</summary>
    public JsonNode QomGet(string path, string property) =>
        Execute("qom-get", new JsonObject { ["path"] = path, ["property"] = property });

    /// <summary>Waits until the migration has one of these states, or has ended.</summary>
    /// <returns>The last that was seen: <see cref="MigrationInfo.Status"/> tells which.</returns>
    /// <exception cref="MonitorException">Timeout: none of them in time.</exception>
    public MigrationInfo WaitForMigration(TimeSpan timeout, params ReadOnlySpan<string> states)
    {
        long deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        while (true)
        {
            var info = QueryMigrate();
            if (states.Contains(info.Status) || info.Ended)
            {
                return info;
            }

            if (Environment.TickCount64 >= deadline)
            {
                throw new MonitorException(
                    MonitorException.Timeout, $"The migration is still in state '{info.Status}' after {timeout.TotalSeconds:F1} s.");
            }

            // With the capability 'events' QEMU says each change; the millisecond is for when that is off.
            WaitForEvent("MIGRATION", TimeSpan.FromMilliseconds(1));
        }
    }

    /// <summary>Waits until the VM has this run state.</summary>
    /// <exception cref="MonitorException">Timeout: not in time.</exception>
    public void WaitForStatus(string state, TimeSpan timeout)
    {
        long deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        while (true)
        {
            var now = QueryStatus();
            if (now.State == state)
            {
                return;
            }

            if (Environment.TickCount64 >= deadline)
            {
                throw new MonitorException(
                    MonitorException.Timeout, $"The VM is '{now.State}', not '{state}', after {timeout.TotalSeconds:F1} s.");
            }

            // Run states change with an event of one name or another; any of them, or 5 ms, is worth a look.
            WaitForEvent(state == "running" ? "RESUME" : "STOP", TimeSpan.FromMilliseconds(5));
        }
    }

    public string QueryVersion()
    {
        var qemu = Object(Object(Execute("query-version"))["qemu"]);
        return $"{qemu["major"]}.{qemu["minor"]}.{qemu["micro"]}";
    }

    /// <summary>Empty if the VM has none.</summary>
    public string QueryName() => Text(Object(Execute("query-name"))["name"]);

    public string QueryUuid() => Text(Object(Execute("query-uuid"))["UUID"]);

    public IReadOnlyList<VmCpu> QueryCpus()
    {
        var cpus = new List<VmCpu>();
        foreach (var entry in Array(Execute("query-cpus-fast")))
        {
            var members = Object(entry);
            cpus.Add(new VmCpu((int)Number(members["cpu-index"], -1), (int)Number(members["thread-id"], 0), Text(members["qom-path"])));
        }

        return cpus;
    }

    /// <summary>The memory devices (DIMMs, virtio-mem) that are plugged in now, given at start or later, by the ids of their backends.</summary>
    public IReadOnlyList<MemoryDevice> QueryMemoryDevices()
    {
        var devices = new List<MemoryDevice>();
        foreach (var entry in Array(Execute("query-memory-devices")))
        {
            var data = Object(entry)["data"] as JsonObject;
            string path = Text(data?["memdev"]);
            devices.Add(new(path[(path.LastIndexOf('/') + 1)..], Number(data?["max-size"], Number(data?["size"], 0))));
        }

        return devices;
    }

    private static JsonObject Object(JsonNode? node) => node as JsonObject
        ?? throw new MonitorException(MonitorException.Protocol, "The monitor's answer is not an object.");

    private static JsonArray Array(JsonNode? node) => node as JsonArray
        ?? throw new MonitorException(MonitorException.Protocol, "The monitor's answer is not a list.");

    private static bool Flag(JsonNode? node) => node is not null && node.GetValueKind() == JsonValueKind.True;

    private static long Number(JsonNode? node, long otherwise)
        => node is JsonValue value && value.TryGetValue(out long number) ? number : otherwise;
}
