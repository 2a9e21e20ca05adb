using System.Management.Automation;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Tells how a split migration comes on, whoever runs it: what goes to each host has a line of its own.</summary>
internal sealed class SplitMigrationProgressWriter(string vm, Action<ProgressRecord> write) : IDisposable
{
    private const int Activity = 4200;
    private const double PageBytes = 4096;

    private readonly ProgressWriter _writer = new(write, Activity, $"Split migration of {vm}");

    /// <param name="step">What whoever runs it does; empty: the figures say.</param>
    /// <param name="status">The figures; null before there are any.</param>
    public void Tell(string step, MigrationStatus? status)
    {
        if (status is null)
        {
            _writer.Tell(step);
            return;
        }

        double remaining = status.RemainingPages * PageBytes;
        // After the switch-over only what the source had left then is still to come.
        double whole = status.State == MigrationState.PostCopy ? status.LeftPagesAtSwitchOver * PageBytes : status.UsedPages * PageBytes;
        whole = Math.Max(whole, remaining);
        bool copies = status.State is MigrationState.PreCopy or MigrationState.SwitchOver or MigrationState.PostCopy;
        _writer.Tell(
            step.Length > 0 ? step : Text(status, remaining),
            copies && whole > 0 ? 1 - (remaining / whole) : null,
            copies && whole > 0 ? SecondsLeft(status, remaining) : null);
        for (int i = 0; i < status.Traffic.Count; i++)
        {
            HostTraffic traffic = status.Traffic[i];
            _writer.TellPart(
                i, $"{(traffic.Role == WorkerRole.Main ? "main host" : "sub-host")} {traffic.Host}", $"{Loader.Display.Bytes(traffic.BytesSent)} sent");
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _writer.Dispose();

    private static double? SecondsLeft(MigrationStatus status, double remaining) => status.State == MigrationState.PostCopy
        ? status.EstimatedSecondsLeft
        : status.BytesPerSecond > 0 ? remaining / status.BytesPerSecond : null;

    private static string Text(MigrationStatus status, double remaining) => status.State switch
    {
        MigrationState.Preparing => "connecting the hosts",
        MigrationState.PreCopy =>
            $"round {status.Round}: {Loader.Display.Bytes(remaining)} to go, {Loader.Display.Bytes(status.BytesPerSecond)}/s, "
            + $"the guest writes {Loader.Display.Bytes(status.DirtyPagesPerSecond * PageBytes)}/s",
        MigrationState.SwitchOver => "switching over",
        MigrationState.PostCopy => $"the VM runs on its new host; {Loader.Display.Bytes(remaining)} still come from the source",
        _ => status.State.ToString(),
    };
}
