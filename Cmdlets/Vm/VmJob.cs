using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>What a VM's host does for it, as a job.</summary>
public sealed class VmJob : BackgroundJob
{
    private readonly Func<Action<object>, Action<ProgressRecord>, CancellationToken, Task> _work;

    /// <param name="command">The line that asked for it.</param>
    /// <param name="name">The job's name.</param>
    /// <param name="vm">The VM's name.</param>
    /// <param name="host">The host's name.</param>
    /// <param name="work">Gets what writes a result, what tells progress, and the token that gives it up.</param>
    internal VmJob(
        string command, string name, string vm, string host,
        Func<Action<object>, Action<ProgressRecord>, CancellationToken, Task> work)
        : base(command, name, vm, host) => _work = work;

    private protected override Task WorkAsync(CancellationToken stop) => _work(Write, Note, stop);
}
