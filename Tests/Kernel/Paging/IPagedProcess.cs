using FCtrans.Agent.Memory;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>A process whose memory a lab's pagers serve.</summary>
internal interface IPagedProcess : IDisposable
{
    int ProcessId { get; }

    /// <summary>Its userfaultfds' numbers in it.</summary>
    IReadOnlyList<int> UffdNumbers { get; }

    /// <summary>The file that its memory is.</summary>
    string RamPath { get; }

    /// <summary>Where it has mapped that.</summary>
    HostAddress Address { get; }
}
