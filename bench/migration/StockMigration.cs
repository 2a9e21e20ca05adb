using System.Diagnostics;
using System.Text.Json.Nodes;
using FCtrans.Agent.Hypervisor;
using FCtrans.Lab;

namespace FCtrans.Bench.Migrations;

/// <summary>How one migration went, QEMU's own or a split one.</summary>
/// <param name="Seconds">From the start of the transfer to the VM running at the destination.</param>
/// <param name="DowntimeMilliseconds">As long as the VM stood still.</param>
/// <param name="BytesSent">Before TLS.</param>
/// <param name="WorkWhile">What the guest did a second while it moved, by <see cref="GuestWork"/>; 0 if not measured.</param>
internal sealed record MigrationSample(double Seconds, double DowntimeMilliseconds, double BytesSent, double WorkWhile = 0);

/// <summary>Moves a lab guest by QEMU's own migration, all of it to one host, as an administrator would.</summary>
internal static class StockMigration
{
    private const int Port = 49200;
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(10);

    /// <param name="streams">1: one stream; more: multifd with as many channels.</param>
    /// <param name="tls">With pre-shared keys, QEMU's simplest.</param>
    /// <param name="downtimeMilliseconds">QEMU's downtime-limit.</param>
    /// <param name="giveUpAfter">Where it may not converge: then the VM is stopped and the rest sent; null: waits for ever.</param>
    public static MigrationSample Run(
        LabGuest guest, LabHost to, int streams, bool tls = false, int downtimeMilliseconds = 300, TimeSpan? giveUpAfter = null,
        GuestWork? work = null, long bytesPerSecond = 1L << 40)
    {
        LabHost from = guest.Host;
        int sourcePid = guest.QemuProcessId;
        StartDestination(guest, to, tls);
        using var source = QemuMonitor.Connect(from.PathOf(guest.MonitorPath), TimeSpan.FromSeconds(10));
        using var destination = QemuMonitor.Connect(to.PathOf(guest.MonitorPath), TimeSpan.FromSeconds(10));
        source.CommandTimeout = destination.CommandTimeout = TimeSpan.FromMinutes(2);
        Prepare(source, streams, tls ? "client" : null, downtimeMilliseconds, bytesPerSecond);
        Prepare(destination, streams, tls ? "server" : null, downtimeMilliseconds, bytesPerSecond);
        destination.MigrateIncoming($"tcp:{to.Address}:{Port}");
        BenchHosts.Warm(to, guest.MemoryBytes);
        work?.Begin();
        long began = Stopwatch.GetTimestamp();
        source.Migrate($"tcp:{to.Address}:{Port}");
        MigrationInfo info;
        bool stopped = false;
        while (!(info = source.QueryMigrate()).Ended)
        {
            if (Stopwatch.GetElapsedTime(began) > s_timeout)
            {
                throw new LabException("QEMU's own migration did not end.");
            }

            if (!stopped && Stopwatch.GetElapsedTime(began) > giveUpAfter)
            {
                stopped = true;
                source.Stop();
            }

            Thread.Sleep(2);
        }

        if (info.Status != "completed")
        {
            throw new LabException($"QEMU's own migration failed: {info.Error}");
        }

        if (stopped)
        {
            destination.Cont();
        }

        while (!destination.QueryStatus().Running)
        {
            Thread.Sleep(1);
        }

        double seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        work?.End();

        from.Exec($"kill -9 {sourcePid}; rm -rf {guest.RunDirectory} /dev/shm/{guest.Name}-ram?");
        guest.MoveTo(to);
        double downtime = stopped ? (seconds - giveUpAfter!.Value.TotalSeconds) * 1000 : info.DowntimeMilliseconds;
        return new MigrationSample(seconds, downtime, info.RamTransferredBytes, work?.PerSecond ?? 0);
    }

    /// <summary>QEMU on the host that the guest goes to, with its own command line there, waiting for it.</summary>
    public static void StartDestination(LabGuest guest, LabHost to, bool tls)
    {
        string[] line = File.ReadAllText(guest.Host.PathOf($"/proc/{guest.QemuProcessId}/cmdline")).TrimEnd('\0').Split('\0');
        LabCommandResult made = to.Exec($"mkdir -p {guest.RunDirectory}");
        LabCommandResult started = made.ExitCode != 0 ? made : to.Exec([.. WithoutIncoming(line), "-incoming", "defer"]);
        if (started.ExitCode != 0)
        {
            throw new LabException($"QEMU did not start on {to.Name}: {started.Error}");
        }

        if (tls)
        {
            foreach (LabHost host in (LabHost[])[guest.Host, to])
            {
                host.Exec("mkdir -p /run/psk && echo qemu:" + new string('5', 64) + " > /run/psk/keys.psk");
            }
        }
    }

    /// <summary>A VM that came by a migration has the option itself.</summary>
    private static IEnumerable<string> WithoutIncoming(string[] line)
    {
        int at = Array.IndexOf(line, "-incoming");
        return at < 0 ? line : [.. line[..at], .. line[(at + 2)..]];
    }

    private static void Prepare(QemuMonitor monitor, int streams, string? tlsEnd, int downtimeMilliseconds, long bytesPerSecond)
    {
        monitor.SetMigrationCapabilities(new Dictionary<string, bool> { ["multifd"] = streams > 1, ["x-ignore-shared"] = false, ["events"] = false });
        var parameters = new JsonObject
        {
            ["max-bandwidth"] = bytesPerSecond,
            ["downtime-limit"] = downtimeMilliseconds,
            ["multifd-channels"] = Math.Max(streams, 1),
            ["tls-creds"] = tlsEnd is null ? "" : "tls-" + tlsEnd,
        };
        if (tlsEnd is not null)
        {
            try
            {
                monitor.Execute("object-del", new JsonObject { ["id"] = "tls-" + tlsEnd });
            }
            catch (MonitorException)
            {
                // It was not there: the usual case.
            }

            monitor.Execute("object-add", new JsonObject
            {
                ["qom-type"] = "tls-creds-psk", ["id"] = "tls-" + tlsEnd, ["endpoint"] = tlsEnd, ["dir"] = "/run/psk",
            });
        }

        monitor.SetMigrationParameters(parameters);
    }
}
