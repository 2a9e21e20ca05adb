using System.Diagnostics;
using System.Text.Json.Nodes;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Workers;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The source's QEMU while it migrates: its own migration moves CPU and device state only (capability x-ignore-shared), stops
/// the VM before the end (pause-before-switchover) and hands the state to us over a Unix socket.
/// </summary>
internal sealed class SourceVm : IDisposable
{
    // With x-ignore-shared the stream has ROMs and video memory at most. A guest's RAM in it means that QEMU did not take the
    // memory for shared, and that the migration would move all of it.
    private const long LargestOtherRam = 512L << 20;

    // Only device state passes: no limit of QEMU's shall make the VM wait.
    private const long UnlimitedBytesPerSecond = 1L << 40;

    /// <summary>All that this migration needs; every other is switched off for it.</summary>
    private static readonly string[] s_capabilities = ["x-ignore-shared", "pause-before-switchover"];

    private static readonly string[] s_parameters = ["max-bandwidth", "downtime-limit", "tls-creds"];
    private static readonly TimeSpan s_stopTimeout = TimeSpan.FromSeconds(30);

    private readonly QemuMonitor _monitor;
    private readonly PidFd _process;
    private readonly WorkerDirectory _directory;
    private readonly string _statePath;
    private readonly LibvirtGuest? _libvirt;
    private DeviceStateReader? _deviceState;

    public SourceVm(QemuProcess process, QemuMonitor monitor, WorkerDirectory directory)
    {
        ProcessId = process.Pid;
        _monitor = monitor;
        _directory = directory;
        _process = PidFd.Open(process.Pid);
        _libvirt = process.Libvirt;
        // A domain's QEMU may be of another user, and confined: its own directory is open to it.
        _statePath = _libvirt is null ? directory.File("state.sock") : Path.Combine(_libvirt.Directory, "fctrans-state.sock");
    }

    public int ProcessId { get; }

    /// <summary>QEMU has ended, and the VM with it unless it runs elsewhere.</summary>
    public bool HasEnded => _process.HasExited;

    /// <summary>When the VM stood still; <see cref="Stopwatch"/> ticks, not later than it really did.</summary>
    public long StoppedAt { get; private set; }

    /// <summary>The VM's processors as they are now: what ties the kernel found in memory to the one that runs.</summary>
    public IReadOnlyList<GuestProcessor> Processors() => GuestProcessor.Ask(_monitor);

    /// <summary>Starts QEMU's migration; returns when the VM stands still and waits for the word to switch over.</summary>
    /// <param name="accept">Gets each piece of the device state, on another thread, from now on.</param>
    /// <param name="cancel">Gives up.</param>
    /// <exception cref="MigrationException">QEMU refused, failed, or would send the guest's RAM.</exception>
    public void StopForSwitchOver(Action<ReadOnlyMemory<byte>> accept, CancellationToken cancel)
    {
        _deviceState = new DeviceStateReader(_statePath, accept);
        if (_libvirt is not null)
        {
            // Only the domain's user gets as far as its directory.
            const UnixFileMode everybody = (UnixFileMode)0b110_110_110;
            File.SetUnixFileMode(_statePath, everybody);
        }

        SetUpMigration();
        long deadline = Stopwatch.GetTimestamp() + (long)(s_stopTimeout.TotalSeconds * Stopwatch.Frequency);
        StoppedAt = Stopwatch.GetTimestamp();
        _monitor.Migrate($"unix:{_statePath}");
        while (true)
        {
            cancel.ThrowIfCancellationRequested();
            long asked = Stopwatch.GetTimestamp();
            var migration = _monitor.QueryMigrate();
            if (migration.RamTotalBytes > LargestOtherRam)
            {
                throw new MigrationException(
                    "QEMU would send the guest's RAM itself: it does not take it for shared memory. Use a memory-backend-file "
                    + "with share=on under /dev/shm (QEMU 8.1 and later do not skip a memory-backend-memfd).");
            }

            switch (migration.Status)
            {
                case "pre-switchover":
                    FailurePoint.Reach("source.stopped");
                    return;
                case "failed" or "cancelled":
                    throw new MigrationException($"QEMU's migration of the device state failed: {migration.Error}");
            }

            if (asked > deadline)
            {
                throw new MigrationException($"QEMU did not stop the VM within {s_stopTimeout.TotalSeconds} s (migration status {migration.Status}).");
            }

            StoppedAt = asked;
            Thread.Yield();
        }
    }

    /// <summary>Lets QEMU write the rest of the device state; returns when all of it has been accepted.</summary>
    /// <returns>Its length in bytes.</returns>
    public long FinishDeviceState(CancellationToken cancel)
    {
        _monitor.MigrateContinue();
        while (_monitor.QueryMigrate() is { Status: not "completed" } migration)
        {
            if (migration.Status is "failed" or "cancelled")
            {
                throw new MigrationException($"QEMU's migration of the device state failed: {migration.Error}");
            }

            cancel.ThrowIfCancellationRequested();
            Thread.Yield();
        }

        return _deviceState!.WaitEnd(cancel);
    }

    /// <summary>Makes the VM run here as before, from whatever state the migration has left it in. May be tried again after it failed.</summary>
    /// <exception cref="MonitorException">QEMU refused it, or did not answer.</exception>
    /// <exception cref="MigrationException">It did not come to that.</exception>
    public void Resume()
    {
        RemoveStateSocket();
        if (_monitor.QueryMigrate().Status is "setup" or "active" or "device" or "pre-switchover")
        {
            _monitor.MigrateCancel();
            WaitUntil(() => _monitor.QueryMigrate().Status is "cancelled" or "failed" or "completed", "cancel its migration");
        }

        // A cancelled migration lets the VM run again by itself, unless it had been stopped for the switch-over already.
        if (!_monitor.QueryStatus().Running)
        {
            _monitor.Cont();
        }

        WaitUntil(() => _monitor.QueryStatus().Running, "run the VM again");
        RestoreMigration();
    }

    /// <summary>Ends the source's QEMU: its VM runs elsewhere now.</summary>
    /// <param name="undefine">libvirt is to forget the domain's description too.</param>
    public void Quit(bool undefine)
    {
        RemoveStateSocket();
        if (_process.HasExited)
        {
            return;
        }

        if (_libvirt is null)
        {
            try
            {
                _monitor.Quit();
            }
            catch (MonitorException e)
            {
                WorkerLog.Write($"the source's QEMU was not told to quit: {e.Message}");
            }
        }
        else
        {
            EndDomain(_libvirt, undefine);
        }

        if (!_process.WaitExit(TimeSpan.FromSeconds(10)))
        {
            _process.SendSignal(9);
            _process.WaitExit(TimeSpan.FromSeconds(10));
        }
    }

    /// <summary>Of a worker that was killed: in a domain's own directory nobody else removes it.</summary>
    private void RemoveStateSocket()
    {
        if (_deviceState is null && File.Exists(_statePath))
        {
            File.Delete(_statePath);
        }
    }

    private static void EndDomain(LibvirtGuest guest, bool undefine)
    {
        try
        {
            using var libvirt = LibvirtConnection.Open();
            var domain = libvirt.FindByUuid(guest.Uuid);
            libvirt.Destroy(domain);
            if (undefine)
            {
                libvirt.Undefine(domain);
            }
        }
        catch (LibvirtException e)
        {
            WorkerLog.Write($"libvirt did not end the domain '{guest.Name}': {e.Message}");
        }
    }

    public void Dispose()
    {
        _deviceState?.Dispose();
        _process.Dispose();
        _monitor.Dispose();
    }

    /// <summary>Whatever others have set for migrations of their own (multifd, TLS, limits) must not touch this one.</summary>
    private void SetUpMigration()
    {
        var capabilities = _monitor.QueryMigrationCapabilities();
        var parameters = _monitor.QueryMigrationParameters();
        _directory.Mark(Markers.MigrationSettings, Settings(capabilities, parameters).ToJsonString());
        _monitor.SetMigrationCapabilities(capabilities.ToDictionary(c => c.Key, c => s_capabilities.Contains(c.Key)));
        _monitor.SetMigrationParameters(new JsonObject
        {
            ["max-bandwidth"] = UnlimitedBytesPerSecond, ["downtime-limit"] = 60_000, ["tls-creds"] = "",
        });
    }

    /// <summary>As <see cref="SetUpMigration"/> found them; what this QEMU does not take back stays as it is.</summary>
    private void RestoreMigration()
    {
        if (_directory.Read(Markers.MigrationSettings) is not { } text || JsonNode.Parse(text) is not JsonObject settings)
        {
            return;
        }

        try
        {
            _monitor.SetMigrationCapabilities(
                ((JsonObject)settings["capabilities"]!).ToDictionary(c => c.Key, c => c.Value!.GetValue<bool>()));
            _monitor.SetMigrationParameters((JsonObject)settings["parameters"]!.DeepClone());
        }
        catch (MonitorException e)
        {
            WorkerLog.Write($"the VM runs, but QEMU's migration settings are not all as before: {e.Message}");
        }
    }

    private static JsonObject Settings(IReadOnlyDictionary<string, bool> capabilities, JsonObject parameters)
    {
        var before = new JsonObject();
        foreach (var (name, on) in capabilities)
        {
            before[name] = on;
        }

        var changed = new JsonObject();
        foreach (string name in s_parameters)
        {
            if (parameters[name] is { } value)
            {
                changed[name] = value.DeepClone();
            }
        }

        return new JsonObject { ["capabilities"] = before, ["parameters"] = changed };
    }

    private static void WaitUntil(Func<bool> condition, string what)
    {
        if (!SpinWait.SpinUntil(condition, TimeSpan.FromSeconds(20)))
        {
            throw new MigrationException($"The source's QEMU did not {what} within 20 s.");
        }
    }
}
